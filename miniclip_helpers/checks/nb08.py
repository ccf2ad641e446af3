"""Exercises of notebook 08: the latency that a user feels, the recall of an index, an index for a budget."""

import numpy as np

from .core import Exercise, Wrong, array, call, compare


def latency(search, queries, clock):
    seconds = []
    for row in range(len(queries)):
        start = clock()
        search(queries[row : row + 1])
        seconds.append(clock() - start)
    p50, p95 = np.percentile(seconds, [50, 95])
    return 1000 * p50, 1000 * p95


def _stage(random):
    """A search that takes known times by a clock of its own: (search, queries, clock, seconds of each query, log of the calls).

    The cost of a query stands in its row; a batch costs a third of the sum, as on several cores. The log holds the rows of each search, 0 for a look at the clock.
    """
    count = int(random.integers(40, 80))
    seconds = random.lognormal(mean=-8.5, sigma=0.35, size=count)
    late = random.choice(count, size=max(3, count // 12), replace=False)
    seconds[late] *= random.uniform(4, 9, size=len(late))
    queries, now, calls = random.normal(size=(count, 6)), [float(random.uniform(100, 900))], []
    queries[:, 0] = seconds

    def search(rows):
        rows = np.asarray(rows)
        if rows.ndim != 2:
            raise ValueError(f"search takes rows (n, D), found the shape {rows.shape}; queries[i:i + 1] is one row")
        calls.append(len(rows))
        now[0] += rows[:, 0].sum() / (3 if len(rows) > 1 else 1)
        return rows[:, :1]

    def clock():
        calls.append(0)
        return now[0]

    return search, queries, clock, seconds, calls


def grade_latency(answer, random):
    """Queries of known cost, a few of them slow; the search keeps count of the rows it is given at a time."""
    search, queries, clock, seconds, calls = _stage(random)
    found = array(call(answer, search, queries, clock), "the two percentiles")
    if not any(calls):
        raise Wrong("You never call `search`. Measure it.")
    if 0 not in calls:
        raise Wrong("You never look at the clock that you were given: clock() gives seconds. (The check's search takes its time by that clock, not by yours.)")
    if found.shape != (2,):
        raise Wrong(f"Return two numbers, p50 and p95; found the shape {found.shape}.")
    expected = 1000 * np.percentile(seconds, [50, 95])
    bounds = [1000 * np.percentile(seconds, [50, 95], method=method) for method in ("lower", "higher")]
    if np.all(found >= bounds[0] * (1 - 1e-6)) and np.all(found <= bounds[1] * (1 + 1e-6)):
        return  # another rule of interpolation between two neighbours is a percentile too
    if max(calls) > 1:
        raise Wrong("You hand over several queries at once, and divide. Each then has the same time, and every percentile of a constant is that constant: project 002's "
                    "p95. Users come one at a time: time each query by itself.")
    if np.all(found == 0) or np.allclose(found, found[0]) and found[0] > 1000:
        raise Wrong("These are no times of single queries. Read the clock before and after each search, and take the difference.")
    ms, total = 1000 * seconds, 1000 * np.cumsum(seconds)
    compare(found, expected, [
        (expected / 1000, "These are seconds. Milliseconds are asked for: times 1000."),
        (1000 * expected, "A thousand times too large: the clock gives seconds, so milliseconds are times 1000, once."),
        (expected[::-1], "The order is p50 first, then p95."),
        (np.percentile(ms, [0.5, 0.95]), "np.percentile counts from 0 to 100: 95, not 0.95. (np.quantile counts from 0 to 1.)"),
        (np.percentile(total, [50, 95]), "The clock was started once, before the first query, so each time holds all the queries before it. Start it anew for each."),
        ([ms.mean(), expected[1]], "The first number is the mean. p50 is the median: half of the queries are quicker. A few slow ones pull the mean up."),
        ([ms.mean(), ms.mean() + 1.645 * ms.std()], "Mean and 1.645 standard deviations would do for a bell curve. Times have a long tail: take "
         "the percentile of the times themselves."),
        ([expected[0], ms.max()], "The second number is the slowest of all. p95: 95 of 100 queries are quicker."),
        ([expected[0], np.percentile(ms, 5)], "The second number is the fifth percentile, the quick end. 95 of 100 queries should be quicker than p95."),
        ([expected[0], np.percentile(ms, 99)], "The second number is p99. p95 is asked for."),
        ([expected[0], np.percentile(ms, 90)], "The second number is p90. p95 is asked for."),
        ([ms.mean(), ms.mean()], "This is the mean, twice. Keep one time per query, and take percentiles of those."),
    ], what="(p50, p95) in milliseconds", rtol=1e-6, atol=1e-9)


def recall(found, exact):
    shares = [len(set(ours) & set(right)) / len(right) for ours, right in zip(found, exact)]
    return sum(shares) / len(shares)


def _answers(random):
    """found and exact, lists of Q lists of names. Some lists are short, some hold a name twice, some have the right names in another order."""
    asked, k = int(random.integers(9, 14)), int(random.integers(4, 7))
    names = np.array([f"photo_{number:03}.jpg" for number in random.permutation(60)])
    exact = [random.choice(names, size=k, replace=False).tolist() for _ in range(asked)]
    found = []
    for right in exact:
        ours = [name if random.random() < 0.75 else random.choice([other for other in names if other not in right]).item() for name in right]
        found.append(list(dict.fromkeys(random.permutation(ours).tolist())))
    found[0], found[1] = list(exact[0]), list(exact[1])[::-1]  # equal, and equal but for the order
    found[2] = found[2][:2]  # a short list: an index with too few cells open finds less
    found[3] = [exact[3][0]] * 3 + exact[3][1 : k - 2]  # one name three times
    return found, exact, k


def _recall_mistakes(found, exact, k):
    pairs = list(zip(found, exact, strict=True))
    everything, wanted = {name for ours in found for name in ours}, {name for right in exact for name in right}
    hits = [len(set(ours) & set(right)) for ours, right in pairs]
    return [
        (np.mean([ours == right for ours, right in pairs]), "This asks for the same names in the same order. Recall asks which of the exact "
         "answers were found, in any order."),
        (np.mean([set(ours) == set(right) for ours, right in pairs]), "All or nothing: a list with nine of ten counts as nothing here. Count the share of each list."),
        (np.mean([sum(a == b for a, b in zip(ours, right)) / k for ours, right in pairs]), "You compare place by place. A right answer one place "
         "lower is still found: compare as sets."),
        (np.mean([ours[0] == right[0] for ours, right in pairs]), "Only the first answers are compared. All k count."),
        (np.mean([right[0] in ours for ours, right in pairs]), "You ask whether the best exact answer was found. All k exact answers count."),
        (np.mean([len(set(ours) & set(right)) / len(ours) for ours, right in pairs]), "You divide by the length of what was found: a search that gives back "
         "one right answer would be perfect. Divide by the number of exact answers."),
        (np.mean([len(set(ours) & set(right)) / len(set(ours) | set(right)) for ours, right in pairs]), "This is the overlap of two sets (Jaccard). "
         "Recall divides by the exact answers alone."),
        (np.mean([sum(name in right for name in ours) / k for ours, right in pairs]), "A name that was found three times is counted three times. Count it once: sets."),
        (len(everything & wanted) / len(wanted), "You put all queries into one pot: a name that was found for another question counts as found. Compare query by query."),
        (np.mean([bool(hit) for hit in hits]), "One right answer in a list is enough here. That is R@K of notebook 07, where each query has one "
         "partner; here each has k exact answers."),
        (sum(hits), "This is the number of hits. Divide by the number of exact answers."),
        (np.mean(hits), "These are hits per query. Divide by k, the number of exact answers of each."),
        (sum(hits) / len(hits) / 10, "You divide by 10. Divide by the number of exact answers, whatever it is."),
        (100 * np.mean(hits) / k, "In percent. A share between 0 and 1 is asked for."),
        (1 - np.mean(hits) / k, "This is the share that was missed."),
    ]


def _recall_by_hand(found, exact):
    """Name by name: each exact answer is looked for in the list of its own query."""
    hits = asked = 0
    for ours, right in zip(found, exact, strict=True):
        for name in right:
            asked += 1
            for other in ours:
                if other == name:
                    hits += 1
                    break
    return hits / asked


def grade_recall(answer, random):
    """Lists drawn until no mistake scores like another or like the truth."""
    for _ in range(300):
        found, exact, k = _answers(random)
        mistakes, expected = _recall_mistakes(found, exact, k), _recall_by_hand(found, exact)
        if len({round(float(value), 6) for value, _ in mistakes} | {round(expected, 6)}) == len(mistakes) + 1:
            break
    given = array(call(answer, found, exact), "the recall")
    if given.shape == (len(exact),):
        raise Wrong("One value per query. Return their mean.")
    compare(given, expected, mistakes, what="the recall", rtol=1e-6, atol=1e-9)


def choose(rows, recall, memory):
    fits = [row for row in rows if row["recall"] >= recall and row["memory_mb"] <= memory]
    return min(fits, key=lambda row: row["p95_ms"])["kind"] if fits else "nothing"


ROLES = {  # what stands out in a row -> what whoever picks it has done
    "poor": "It misses more of the exact answers than was allowed. Did you look at `recall`? (Quick and wrong is easy.)",
    "large": "It does not fit into the memory. Did you look at `memory_mb`?",
    "exact": "It has the highest recall. Good enough was asked for, and of those that are good enough the quickest.",
    "small": "It has the smallest memory. Whatever fits will do; of those that fit the quickest is asked for.",
    "mean": "It has the lowest mean, not the lowest p95. A mean hides the slow queries.",
    "median": "It has the lowest p50, not the lowest p95. Half of the users do not see p50.",
    "slow": "It is the slowest of those that fit. Take the smallest p95.",
    "second": "There is a quicker one that fits, exactly: a recall of just what was asked, or just the memory that there is, is enough (>= and <=).",
    "ratio": "It has the best ratio of recall to time. A budget is no ratio: first what fits, then the quickest of that.",
    "first": "It fits, and it stands first. Look at all that fit, and take the smallest p95.",
}


def _offers(random):
    """Rows with one role each, {role: row}; recall and memory asked for."""
    recall, memory, time = round(random.uniform(0.9, 0.97), 3), round(random.uniform(40, 90), 1), random.uniform(0.2, 0.6)
    exactly = random.random() < 0.5
    table = {  # role: recall, p50, p95, mean, memory; times in units of the best row's p95
        "best": (recall if exactly else recall + 0.004, 0.80, 1.00, 0.85, 0.9 * memory if exactly else memory),
        "second": (recall + 0.003, 0.85, 1.10, 0.90, 0.8 * memory),
        "mean": (recall + 0.005, 0.60, 1.60, 0.65, 0.85 * memory),
        "median": (recall + 0.006, 0.45, 1.90, 0.95, 0.7 * memory),
        "small": (recall + 0.002, 1.50, 2.20, 1.60, 0.2 * memory),
        "first": (recall + 0.001, 1.40, 2.00, 1.50, 0.6 * memory),
        "exact": (1.0, 2.00, 2.60, 2.10, 0.95 * memory),
        "slow": (recall + 0.007, 2.50, 3.50, 2.70, 0.75 * memory),
        "large": (recall + 0.008, 0.30, 0.70, 0.35, 1.6 * memory),
        "poor": (recall - 0.15, 0.35, 0.55, 0.40, 0.5 * memory),
        "ratio": (recall - 0.3, 0.10, 0.20, 0.12, 1.8 * memory),
    }
    numbers = dict(zip(table, random.permutation(len(table)) + 1))
    rows = {role: {"kind": f"index {numbers[role]}", "recall": round(values[0], 3), "p50_ms": time * values[1], "p95_ms": time * values[2], "mean_ms": time * values[3],
                   "memory_mb": values[4]} for role, values in table.items()}
    return rows, recall, memory


def grade_choose(answer, random):
    """One row for each way to go wrong; then a memory that nothing fits into."""
    rows, recall, memory = _offers(random)
    order = ["large", "first", *random.permutation([role for role in rows if role not in ("large", "first", "slow")]).tolist(), "slow"]
    listed = [rows[role] for role in order]
    picked = _kind(call(answer, listed, recall, memory), rows)
    role = next((role for role, row in rows.items() if row["kind"] == picked), None)
    if role is None:
        raise Wrong(f"{picked!r} is not one of the kinds in the table." if picked != "nothing" else "You say that nothing fits, and several rows do.")
    if role != "best":
        raise Wrong(f"You took {picked!r}. {ROLES[role]}")
    none = _kind(call(answer, listed, recall, 0.1 * memory), rows)
    if none != "nothing":
        raise Wrong(f"With a memory of {0.1 * memory:.1f} MB no row fits, and you took {none!r}. Return 'nothing': to say so is better than to break the budget in silence.")


def _kind(found, rows):
    if isinstance(found, dict):
        raise Wrong("You returned the whole row. Return its kind: row['kind'].")
    if not isinstance(found, str):
        raise Wrong(f"Return the kind, a string such as {rows['best']['kind']!r}; found {type(found).__name__}.")
    return str(found)


EXERCISES = (
    Exercise(
        "08.latency", "the time that a user waits", points=2, minutes=8, level="core", needs="loops, np.percentile",
        hints=("One time per query: read the clock, search for one row, read the clock again.",
               "queries[i:i + 1] is one row and keeps the shape (1, D). Collect the differences in a list.",
               "np.percentile(seconds, [50, 95]) * 1000, after the loop."),
        grade=grade_latency, reference=latency,
        explanation="A batch shares its work among all cores, and each vector that is fetched among all queries; its total says nothing of the single "
                    "query. Divided by their number it gives the same figure for each, and every percentile of a constant is that constant. p95 is about the tail: "
                    "only single times have one.",
        passed="A p95 that is more than a mean in disguise."),
    Exercise(
        "08.recall", "the recall of an index", points=2, minutes=8, level="core", needs="sets, means",
        hints=("For one query: how many of its exact answers are among those found? Order does not matter, and a name counts once.",
               "set(ours) & set(right) are the hits. Divide by the number of exact answers.",
               "The mean over the queries of len(set(ours) & set(right)) / len(right)."),
        grade=grade_recall, reference=recall,
        explanation="The exact answers are the yardstick, so their number is what one divides by: dividing by what was found rewards an index that gives back little. "
                    "Sets, because the order is not asked for and a name that comes twice is one hit. Query by query, because an answer to another question is no answer.",
        passed="Now an index can be compared with the truth."),
    Exercise(
        "08.choose", "an index for a budget", points=2, minutes=7, level="core", needs="filtering a list, min with a key",
        hints=("Two steps: keep the rows that fit, then take the quickest.",
               "A row fits when its recall is at least what is asked and its memory at most what there is. Quickest: the smallest p95_ms.",
               "min(fits, key=lambda row: row['p95_ms'])['kind'] if fits else 'nothing'"),
        grade=grade_choose, reference=choose,
        explanation="Constraints first, then one aim. Any single score, recall by time or so, hides an exchange rate that nobody agreed to. And where nothing fits, "
                    "the honest answer is to say so: then a person decides whether recall, memory or time must give.",
        passed="First what fits, then the quickest of it."),
)
