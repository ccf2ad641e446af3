"""Exercises of notebook 06: a scorer that finds the right picture, the gate, the best state that stays the best, weights between two models."""

import copy

import numpy as np

from .core import Exercise, Wrong, array, call, compare


def _unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def scorer(image_rows, text_rows, owner):
    similarity = text_rows @ image_rows.T
    best = similarity.argmax(axis=1)
    return (owner[best] == owner).mean()


def _scored(similarity, owner, ascending=False):
    """Hits by hand: for each caption, walk over the pictures and remember the best one's number."""
    hits = 0
    for caption, scores in enumerate(similarity):
        place = 0
        for column in range(1, len(scores)):
            better = scores[column] < scores[place] if ascending else scores[column] > scores[place]
            place = column if better else place
        hits += owner[place] == owner[caption]
    return hits / len(owner)


def _captioned_pictures(random):
    """image_rows, text_rows (M, D) and owner (M,): two to five captions a picture, in no order, a third of them about another picture."""
    pictures, dim = int(random.integers(7, 12)), 24
    count = random.integers(2, 6, size=pictures)
    count[:2] = 2, 5
    owner = random.permutation(np.repeat(np.arange(pictures), count))
    seen, aim = _unit(random.normal(size=(pictures, dim))), owner.copy()
    lost = random.choice(len(owner), size=len(owner) // 3, replace=False)
    aim[lost] = random.permutation(aim[lost])
    return seen[owner], _unit(seen[aim] + 0.12 * random.normal(size=(len(owner), dim))), owner


def _scorer_mistakes(similarity, owner):
    """[(score, hint)] of the usual wrong scorers."""
    best, pictures = similarity.argmax(1), owner.max() + 1
    first, right = np.unique(owner, return_index=True)[1], owner[similarity.argmax(1)] == owner
    return [
        ((best == owner).mean(), "This is the scorer of project 002: `best` counts columns, one per caption; `owner` counts pictures. Two numberings that "
                                 "never meet. Which picture stands in column `best`?"),
        ((best == np.arange(len(owner))).mean(), "You ask each caption for its own column. A picture with five captions stands in five equal columns, and argmax "
                                                 "takes the first: four of five hits are lost. Ask which picture the column shows."),
        ((owner[similarity.argmax(0)] == owner).mean(), "This goes the other way, from picture to caption. Rows are captions here: the best over axis 1."),
        (_scored(similarity, owner, ascending=True), "You took the worst column. The largest cosine wins."),
        (np.mean([right[owner == i].any() for i in range(pictures)]), "You count a picture as found when one caption finds it. Text to image asks every caption."),
        (right[first].mean(), "Only the first caption of each picture is counted. Every caption is a query."),
        (right.sum() / pictures, "You divided by the number of pictures. The queries are the captions."),
        (right.sum(), "This is the number of hits. Divide by the number of captions."),
        (100 * right.mean(), "In percent. A share between 0 and 1 is asked for."),
        ((similarity[:, first].argmax(1) == np.arange(len(owner))).mean(), "You have one column per picture now, and compare it with the number of the caption. "
                                                                           "Compare it with `owner`."),
        (1 - right.mean(), "This is the share that is wrong."),
    ]


def grade_scorer(answer, random):
    """Pictures with their captions, drawn until no mistake scores like another or like the truth, which is counted caption by caption."""
    for _ in range(200):
        images, texts, owner = _captioned_pictures(random)
        similarity = texts @ images.T
        mistakes = _scorer_mistakes(similarity, owner)
        expected = _scored(similarity, owner)
        if len({round(float(value), 6) for value, _ in mistakes} | {round(expected, 6)}) == len(mistakes) + 1:
            break
    found = array(call(answer, images, texts, owner), "the share of captions")
    if found.shape == (len(owner),):
        raise Wrong("One value per caption. Return the share that is right: the mean.")
    compare(found, expected, mistakes, what="the share of captions that find their picture", rtol=1e-6, atol=1e-9)


class _Weights(dict):
    """Weights as a dict of arrays. `call` copies its inputs; the check must see what the answer does to these, so the first copy is the original."""

    shared = True

    def __deepcopy__(self, memo):
        if self.shared:
            self.shared = False
            return self
        return {key: value.copy() for key, value in self.items()}


def gate(score, weights, prepare, expected):
    prepared = prepare(copy.deepcopy(weights))
    return abs(score(prepared) - expected) < 1e-6


def grade_gate(answer, random):
    """A path that leaves the weights alone, one that breaks them, and scores a little or far from what was expected; each path uses up what it is given."""
    queries, dim = 50, 8
    images = _unit(random.normal(size=(queries, dim)))
    texts = _unit(images + 0.3 * random.normal(size=(queries, dim)))
    weights = {"image": random.normal(size=(dim, dim)), "text": np.empty((0, 0))}
    weights["text"] = np.linalg.inv(weights["image"]).T

    def score(given):
        return float(((texts @ given["text"]) @ (images @ given["image"]).T).argmax(1).__eq__(np.arange(queries)).mean())

    base = score(weights)

    def broken(given):
        given["image"] *= -1.0
        return given

    def untouched(given):
        moved = {key: value * 1.0 for key, value in given.items()}
        for value in given.values():
            value *= 0  # what it was given is used up
        return moved

    cases = [("a path that changes nothing", untouched, base, True), ("a score half as high as expected", untouched, 2 * base, False),
             ("a path that turns every picture round", broken, base, False), ("a path that scores better than zero-shot did", untouched, base - 0.1, False),
             ("a path that loses one query in fifty", untouched, base + 1 / queries, False)]
    for what, prepare, expected, opens in cases:
        held, calls = _Weights({key: value.copy() for key, value in weights.items()}), []
        found = call(answer, lambda given, calls=calls: calls.append(1) or score(given), held, prepare, expected)
        if any(not np.array_equal(held[key], weights[key]) for key in weights):
            raise Wrong("After your gate the weights are others: `prepare` works in place, and you gave it the original (or a copy of the dict that holds the same "
                        "arrays). Give it a deep copy: copy.deepcopy(weights).")
        _judge_gate(found, what, opens, expected - base, calls)


def _judge_gate(found, what, opens, apart, calls):
    """Whether the verdict on one path is right, and if not, what that tells of the gate."""
    if not isinstance(found, (bool, np.bool_)):
        raise Wrong(f"Return True or False, open or closed; found {type(found).__name__}. A score alone opens nothing.")
    if not calls:
        raise Wrong("Your gate never calls `score`. It must measure.")
    if bool(found) == opens:
        return
    if opens:
        raise Wrong("Your gate stays closed for a path that changes nothing. Score what `prepare` returns, and open when it equals `expected`.")
    if apart > 0.05:
        raise Wrong("Your gate opens although the score is half of `expected`. Compare with `expected`, and ask for equality. It was measured elsewhere: two "
                    "scores out of the same code agree even when the code is wrong.")
    if apart < 0:
        raise Wrong(f"Your gate let {what} through. Too good is as wrong as too bad: nothing has been trained yet, so the scorer or the data has changed. "
                    "Ask for equality, not for >=.")
    if apart > 0:
        raise Wrong(f"Your gate let {what} through: the tolerance is too wide. The weights are the same, so the score must be the same, but for rounding.")
    raise Wrong(f"Your gate let {what} through. Do you score the weights as they came? The gate must score what `prepare` returns: that is what will be trained.")


def keep_best(epochs):
    best_state, best_score = None, -np.inf
    for state, score in epochs:
        if score > best_score:
            best_state, best_score = copy.deepcopy(state), score
    return best_state, best_score


class _Epochs:
    """A training: the same dict and the same arrays each epoch, changed in place, as an optimizer does it."""

    def __init__(self, states, scores):
        self.states, self.scores = states, scores

    def __iter__(self):
        live = {key: value.copy() for key, value in self.states[0].items()}
        for state, score in zip(self.states, self.scores, strict=True):
            for key, value in state.items():
                live[key][...] = value
            yield live, score


def grade_keep_best(answer, random):
    """The best epoch somewhere in the middle; once all scores lie below 0, as a log-likelihood does; the arrays are changed in place."""
    for low, high in ((-3.0, -0.2), (0.1, 0.9)):
        _grade_training(answer, random, low, high)


def _grade_training(answer, random, low, high):
    count = int(random.integers(5, 9))
    best = int(random.integers(1, count - 2))
    scores = random.permutation(np.linspace(low, high, count)).tolist()
    top = int(np.argmax(scores))
    scores[best], scores[top] = scores[top], scores[best]
    states = [{"weight": random.normal(size=(2, 3)), "bias": random.normal(size=3)} for _ in range(count)]
    found = call(answer, _Epochs(states, scores))
    if not isinstance(found, (tuple, list)) or len(found) != 2:
        raise Wrong("Return two things: the best state and its score.")
    state, score = found
    if isinstance(score, dict):
        raise Wrong("The order is: the best state first, then its score.")
    if state is None:
        raise Wrong("No epoch was ever the best. Do you begin with a best score of 0? A score can lie below 0; begin with -inf.")
    if not isinstance(state, dict) or set(state) != {"weight", "bias"}:
        raise Wrong("The state must be a dict with the same keys as those that came in.")
    same = lambda place: all(np.array_equal(array(state[key]), states[place][key]) for key in states[place])  # noqa: E731
    compare(score, scores[best], [
        (scores[-1], "This is the score of the last epoch. Keep the highest."),
        (min(scores), "You kept the lowest score. Higher is better here."),
        (scores[0], "You kept the first epoch. Compare each score with the best one so far, and remember it when it is beaten."),
    ], what="the best score", rtol=1e-9)
    if same(best):
        return
    if same(count - 1):
        raise Wrong("The score is the best epoch's, the weights are the last one's. What you kept is not a copy but another name for the live arrays "
                    "(`best = state`, `dict(state)`, `state.copy()` and `copy.copy` all share them), and training wrote on: copy.deepcopy (project 002's bug).")
    raise Wrong("The score is right, the weights are not those of that epoch." + (" They are those of the first." if same(0) else ""))


def wise_ft(before, after, alpha):
    return {name: (1 - alpha) * before[name] + alpha * after[name] if np.issubdtype(after[name].dtype, np.floating) else after[name] for name in after}


def grade_wise_ft(answer, random):
    """A matrix, a vector, a number, a counter; alpha inside, and at both ends."""
    shapes = {"head.weight": (4, 3), "head.bias": (3,), "log_logit_scale": ()}
    before, after = ({name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()} for _ in range(2))
    before["batches_seen"], after["batches_seen"] = np.array(int(random.integers(100, 200))), np.array(int(random.integers(300, 400)))
    kept = _Weights(before), _Weights(after)
    originals = copy.deepcopy(before), copy.deepcopy(after)
    for alpha in (float(random.uniform(0.1, 0.4)), 0.0, 1.0):
        for side in kept:
            side.shared = True
        found = call(answer, *kept, alpha)
        if any(not np.array_equal(side[name], old[name]) for side, old in zip(kept, originals, strict=True) for name in old):
            raise Wrong("Your function changed the weights that it was given. Make new arrays: (1 - alpha) * b + alpha * a, without +=.")
        if not isinstance(found, dict):
            raise Wrong(f"Return a dict of arrays, one per weight, found {type(found).__name__}.")
        if set(found) != set(before):
            lost = sorted(set(before) - set(found))
            raise Wrong(f"Weights are missing: {', '.join(lost)}. A model wants all of them." if lost else "There are names that neither model has.")
        _check_floats(found, *originals, alpha)
        counter = array(found["batches_seen"])
        if counter.shape != () or counter != originals[1]["batches_seen"]:
            raise Wrong("`batches_seen` is a counter, an integer: half a batch means nothing. Take integers from `after` as they are.")


def _check_floats(found, before, after, alpha):
    mixed = lambda b, a, share: (1 - share) * b.astype(np.float64) + share * a  # noqa: E731
    for name in ("head.weight", "head.bias", "log_logit_scale"):
        b, a = before[name], after[name]
        compare(found[name], mixed(b, a, alpha), [
            (mixed(b, a, 1 - alpha), "before and after are the wrong way round: alpha = 0 is the model before, alpha = 1 the model after."),
            (b if 0 < alpha < 1 else np.full_like(b, np.nan), f"`{name}` was left as it was before. Every weight with a fraction moves, vectors and single numbers too."),
            (a if 0 < alpha < 1 else np.full_like(a, np.nan), f"`{name}` was taken from after. Every weight with a fraction is mixed, vectors and single numbers too."),
            ((b.astype(np.float64) + a) / 2, "This is the plain mean of the two: alpha is not used."),
            (b + alpha * a, "before keeps its whole weight: the shares must add up to 1, so before gets (1 - alpha)."),
            (b * (1 - alpha) * alpha * a, "Add the two parts, do not multiply them."),
            (alpha * (a - b), "This is the step from before towards after. Add it to before."),
            (b - alpha * (a.astype(np.float64) - b), "You walk away from after. The step is alpha * (after - before), added."),
            (lambda b=b, a=a: np.sign(b) * np.abs(b) ** (1 - alpha) * np.abs(a) ** alpha, "This is a geometric mean. WiSE-FT is a straight line."),
        ], what=f"`{name}` at alpha = {alpha:.3g}", rtol=1e-4, atol=1e-6)


EXERCISES = (
    Exercise(
        "06.scorer", "repair the broken scorer", points=2, minutes=8, level="core", needs="argmax, indexing an array with an array",
        hints=("Write down for three pictures with two captions each what `best` can hold (0 to 5), and what `owner` holds (0 to 2).",
               "Two ways out: translate the column into its picture, or make a matrix with one column per picture before you take the argmax.",
               "owner[best] is the picture that stands in column `best`. Compare that with owner, and take the mean."),
        grade=grade_scorer, reference=scorer,
        explanation="Column j of the matrix shows the picture of caption j, which is owner[j]. The broken scorer compared the column itself with a picture's "
                    "number, so hardly any picture could ever be right, and every model scored about nothing. argmax takes the first of several equal columns; "
                    "owner[best] does not mind, as they all show the same picture.",
        passed="A scorer can be wrong too. Now a perfect model is perfect."),
    Exercise(
        "06.gate", "the gate before any training", points=2, minutes=8, level="core", needs="functions as arguments, copies",
        hints=("Three steps: make the weights ready, score them, compare with expected.",
               "Score what `prepare` returns, not what came in. And give `prepare` a copy of its own: copy.deepcopy(weights).",
               "return abs(score(prepare(copy.deepcopy(weights))) - expected) < 1e-6"),
        grade=grade_gate, reference=gate,
        explanation="Nothing has been trained, so nothing may differ: not worse, not better. A gate that asks for 'at least' lets a scorer through that has seen "
                    "the answers, a wide tolerance one that loses a query in fifty, and a gate that scores the weights before they go through the path tests "
                    "nothing at all. The copy must be deep: a shallow one shares the arrays.",
        passed="Closed for everything but equality. It would have told project 002 within a minute."),
    Exercise(
        "06.keep_best", "keep the best epoch", points=1, minutes=5, level="warm-up", needs="loops, copies of a dict",
        hints=("Remember the best score so far, and the state that had it.",
               "The state that comes in is the same dict each time, with the same arrays, and training goes on writing into them.",
               "if score > best_score: best_state, best_score = copy.deepcopy(state), score. Begin with best_score = -inf."),
        grade=grade_keep_best, reference=keep_best,
        explanation="`best = model.state_dict()` keeps references: the tensors in it are the model's own, and the optimizer changes them in place. At the end "
                    "`best` is the last epoch under another name. dict(...), .copy() and copy.copy make a new dict around the same tensors. Only a deep copy "
                    "holds still.",
        passed="A deep copy holds still while training goes on."),
    Exercise(
        "06.wise_ft", "the models between two models", points=2, minutes=8, level="core", needs="dicts of arrays, weighted means",
        hints=("For each name: (1 - alpha) times the weight before, plus alpha times the weight after.",
               "All weights with a fraction take part, single numbers too. Counters (integers) come from `after` as they are.",
               "np.issubdtype(after[name].dtype, np.floating) tells which is which. Build a new dict; change nothing in place."),
        grade=grade_wise_ft, reference=wise_ft,
        explanation="A straight line in weight space. That the models on it are any good is not obvious, as a network is not linear in its weights; it works "
                    "because fine-tuning from a common start stays in one valley of the loss (Wortsman et al. 2022). Between two models trained from different "
                    "starts the middle is rubbish.",
        passed="Two models in, as many as you like out, and no training at all."),
)
