"""Exercises of notebook 09: a probe that cannot be guessed, the rate of an attack, the map of Grad-CAM."""

import numpy as np

from .core import Exercise, Wrong, array, call, compare

NOUNS = ("mug", "tent", "lion", "drum", "kite", "boat", "pear", "lamp", "frog", "sled")
COLOURS = ("red", "blue", "green", "yellow", "black", "white")


def binding_questions(nouns, colours, random):
    asked = []
    for first in nouns:
        for second in nouns:
            if first == second:
                continue
            one, other = random.permutation(colours)[:2]
            true, false = f"a {one} {first} and a {other} {second}", f"a {other} {first} and a {one} {second}"
            right = len(asked) % 2
            scene = {first: str(one), second: str(other)}
            asked.append((scene, [true, false] if right == 0 else [false, true], right))
    return asked, 1 / 2


def grade_questions(answer, random):
    """Few nouns and colours; every ordered pair once; then the questions are taken apart, one property after the other."""
    nouns = [str(noun) for noun in random.permutation(NOUNS)[: random.integers(4, 6)]]
    colours = [str(colour) for colour in random.permutation(COLOURS)[: random.integers(3, 5)]]
    found = call(answer, nouns, colours, np.random.default_rng(int(random.integers(1000))))
    if not isinstance(found, (tuple, list)) or len(found) != 2 or not isinstance(found[0], (list, tuple)):
        raise Wrong("Return two things: the list of questions and the chance level.")
    asked, chance = found
    if not asked or any(not isinstance(row, (tuple, list)) or len(row) != 3 for row in asked):
        raise Wrong("Each question is three things: the scene (a dict noun: colour), the list of two captions, the place of the right one.")
    for scene, captions, right in asked:
        _check_question(scene, captions, right, nouns, colours)
    _check_balance(asked, nouns)
    compare(chance, 0.5, [
        (1 / len(asked), "This is one over the number of questions. Chance is what guessing brings on one question: one of two captions."),
        (1 / len(nouns), "This is one over the number of nouns. Nobody has to guess the noun: two captions are offered."),
        (1 / len(colours), "This is one over the number of colours. Two captions are offered, so a guess is right in one of two."),
        (50, "In percent. A share between 0 and 1 is asked for."),
        (0, "Somebody who guesses between two captions is not always wrong."),
    ], what="the chance level", rtol=1e-6, atol=1e-9)


def _check_question(scene, captions, right, nouns, colours):
    if not isinstance(scene, dict) or len(scene) != 2 or not set(scene) <= set(nouns) or not set(scene.values()) <= set(colours):
        raise Wrong(f"A scene is a dict of two different nouns with their colours, like {{'mug': 'red', 'tent': 'blue'}}; found {scene!r}.")
    if len(set(scene.values())) < 2:
        raise Wrong(f"Both things have one colour in {scene!r}: then both captions are true, and there is nothing to bind.")
    if not isinstance(captions, (list, tuple)) or len(captions) != 2 or not all(isinstance(caption, str) for caption in captions):
        raise Wrong(f"Expected a list of two captions, found {captions!r}.")
    if captions[0] == captions[1]:
        raise Wrong(f"The two captions of a question are the same: {captions[0]!r}. No model can tell them apart, and a tie is a coin.")
    if isinstance(right, (bool, np.bool_)) or right not in (0, 1):
        raise Wrong(f"The place of the right caption is 0 or 1, found {right!r}.")
    true = [all(f"{colour} {noun}" in caption for noun, colour in scene.items()) for caption in captions]
    if all(true):
        raise Wrong(f"Both captions are true of {scene!r}: {captions}.")
    if not any(true):
        raise Wrong(f"No caption says what the scene {scene!r} is: {captions}. Expected a colour before each noun, as in 'a red mug and a blue tent'.")
    if not true[right]:
        raise Wrong(f"The scene is {scene!r}, the captions are {captions}, and you call number {right} right.")
    if sorted(captions[0].split()) != sorted(captions[1].split()):
        raise Wrong(f"The two captions do not hold the same words: {captions}. Then a bag of words can tell them apart, and the probe does not ask who has "
                    "which colour. Exchange the two colours, and nothing else.")


def _check_balance(asked, nouns):
    right = np.array([row[2] for row in asked])
    if len(set(right.tolist())) == 1:
        raise Wrong(f"The right caption always stands at place {right[0]}. Whoever noticed is right "
                    "without a picture. Shuffle.")
    if abs(right.mean() - 0.5) > 0.35:
        raise Wrong(f"The right caption stands at place 1 in {right.mean():.0%} of the questions: whoever always says the same beats chance. Half and half.")
    couples = {tuple(row[0]) for row in asked}
    wanted = len(nouns) * (len(nouns) - 1)
    if len(asked) != wanted or len({frozenset(couple) for couple in couples}) != wanted // 2:
        raise Wrong(f"Expected each ordered pair of different nouns once, {wanted} questions for {len(nouns)} nouns; found {len(asked)}.")
    if all(_first_named(row) == right_colour for row in asked for right_colour in [min(row[0].values())]):
        raise Wrong("The first colour of the true caption is always the one that comes first in the alphabet: a model that likes that order needs no picture. Draw the colours.")
    if len({tuple(row[0].values()) for row in asked}) == 1:
        raise Wrong("All questions have the same two colours in the same order. Draw them anew for each, or a liking for one caption decides everything.")


def _first_named(row):
    """The colour that the right caption names first."""
    words = row[1][row[2]].split()
    return next(word for word in words if word in row[0].values())


def attack_rate(before, with_word, with_nonsense, right, written):
    known = before == right
    return np.mean(with_word[known] == written[known]) - np.mean(with_nonsense[known] == written[known])


def grade_attack(answer, random):
    """Answers of a model that is right on three quarters of the pictures, falls for half of the words, rarely for nonsense; no mistake gives the true number."""
    for _ in range(300):
        inputs = _attack(random)
        expected = _counted(*inputs)
        mistakes = _attack_mistakes(*inputs)
        if len({round(float(value), 6) for value, _ in mistakes} | {round(expected, 6)}) == len(mistakes) + 1:
            break
    found = array(call(answer, *inputs), "the rate")
    if found.shape == (len(inputs[0]),):
        raise Wrong("One value per picture. Return one number: the difference of two shares.")
    compare(found, expected, mistakes, what="the rate of the attack", rtol=1e-6, atol=1e-9)


def _attack(random):
    """before, with_word, with_nonsense, right, written: (N,) class numbers, and the written class is never the right one."""
    count, classes = int(random.integers(60, 90)), 9
    right = random.integers(classes, size=count)
    written = (right + random.integers(1, classes, size=count)) % classes
    other = random.integers(classes, size=count)
    draw = random.random(size=(3, count))
    before = np.where(draw[0] < 0.7, right, np.where(draw[0] < 0.85, written, other))
    with_word = np.where(draw[1] < 0.5, written, np.where(draw[1] < 0.85, right, other))
    with_nonsense = np.where(draw[2] < 0.15, written, np.where(draw[2] < 0.75, right, other))
    return before, with_word, with_nonsense, right, written


def _counted(before, with_word, with_nonsense, right, written):
    """The rate by hand, picture by picture."""
    known = fell = stumbled = 0
    for place in range(len(right)):
        if before[place] == right[place]:
            known += 1
            fell += int(with_word[place] == written[place])
            stumbled += int(with_nonsense[place] == written[place])
    return (fell - stumbled) / known


def _attack_mistakes(before, with_word, with_nonsense, right, written):
    known, fell, stumbled = before == right, with_word == written, with_nonsense == written
    return [
        (fell[known].mean(), "You forgot the control: nonsense letters cover the picture as well, and some answers turn to the written name by chance. Subtract their share."),
        (fell.mean() - stumbled.mean(), "You count pictures that the model did not know even before. Only those right without any writing can be fooled: keep before == right."),
        (fell.mean(), "Two things are missing: only pictures that were right before count, and the share that turns to the name under nonsense must be subtracted."),
        ((with_word != right)[known].mean() - (with_nonsense != right)[known].mean(), "You count every answer that is wrong now. "
         "An attack is a success when the answer is the *written* word; another wrong answer only shows that the picture was covered."),
        ((with_word != right)[known].mean(), "You count every wrong answer, without the control. Count answers that are the written word, and "
                                                    "subtract the same share under nonsense."),
        ((fell & known).mean() - (stumbled & known).mean(), "You divide by all pictures. Divide by those that were right before: the others could not be lost."),
        ((fell & known).sum() - (stumbled & known).sum(), "This is a number of pictures. A share of the pictures that were right before is asked for."),
        (stumbled[known].mean() - fell[known].mean(), "The sign is turned: the share under the word, less the share under nonsense."),
        (100 * (fell[known].mean() - stumbled[known].mean()), "In percent. A share is asked for."),
        (fell[known & ~stumbled].mean(), "You leave out pictures that turned under nonsense. That makes the attack look purer than it is: "
                                            "subtract the two shares over the same pictures."),
    ]


def grad_cam(maps, gradients):
    weights = gradients.mean(axis=(1, 2))
    found = np.maximum((weights[:, None, None] * maps).sum(axis=0), 0)
    return found / max(found.max(), 1e-12)


def grade_grad_cam(answer, random):
    """Maps of a relu and gradients of both signs; then a case in which nothing speaks for the text, where dividing by the maximum would divide by 0."""
    channels, height, width = int(random.integers(5, 8)), 4, 5
    for _ in range(300):
        maps = np.maximum(random.normal(size=(channels, height, width)) + 0.3, 0)
        gradients = random.normal(size=(channels, height, width)) + random.normal(size=(channels, 1, 1))
        expected, mistakes = _cam_by_hand(maps, gradients), _cam_mistakes(maps, gradients)
        values = [expected, *(value for value, _ in mistakes)]
        if expected.any() and all(np.abs(one - other).max() > 1e-3 for place, one in enumerate(values) for other in values[:place]):
            break
    compare(call(answer, maps, gradients), expected, mistakes, what="the map", rtol=1e-4, atol=1e-6)
    against = -np.abs(gradients)
    found = array(call(answer, maps, against), "the map")
    if not np.isfinite(found).all():
        raise Wrong("Where nothing speaks for the text the map is zero everywhere, and you divide 0 by 0. Divide by max(largest value, something tiny).")
    compare(found, np.zeros((height, width)), what="the map when every channel speaks against the text", atol=1e-6)


def _cam_by_hand(maps, gradients):
    height, width = maps.shape[1:]
    found = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            total = sum(maps[c, row, column] * gradients[c].sum() / (height * width) for c in range(len(maps)))
            found[row, column] = max(total, 0.0)
    return found / max(found.max(), 1e-12)


def _cam_mistakes(maps, gradients):
    weights = gradients.mean((1, 2))[:, None, None]
    raw = (weights * maps).sum(0)
    scaled = lambda values: values / max(np.abs(values).max(), 1e-12)  # noqa: E731
    return [
        (np.maximum(raw, 0), "The largest value is not 1. Divide by the maximum, so that maps of two texts can be laid side by side."),
        (raw / max(raw.max(), 1e-12), "There are negative values: places that speak against the text. Cut them off: relu, after the sum."),
        (scaled(np.abs(raw)), "You took the absolute value: what speaks against the text lights up as if it spoke for it. Cut off at zero."),
        (scaled(np.maximum(weights * maps, 0).sum(0)), "You cut off before adding up, or dropped the channels with "
         "negative weight: those that speak against could no longer outweigh those that speak for. Sum first, then relu."),
        (scaled(np.maximum((gradients * maps).sum(0), 0)), "You multiply gradient and map place by place. In Grad-CAM a channel has one weight: the mean of its "
                                                                  "gradient over space."),
        (scaled(np.maximum((gradients.mean(0)[None] * maps).sum(0), 0)), "You averaged the gradient over the channels (axis 0). Average over space: axes 1 and 2."),
        (scaled(maps.sum(0)), "The gradient plays no part here: this is where the tower is loud, whatever the text. Weight the channels."),
        (scaled(np.maximum(gradients.mean(0), 0)), "The maps play no part here. Weight them with the mean gradients."),
    ]


EXERCISES = (
    Exercise(
        "09.probe", "write a probe that cannot be guessed", points=3, minutes=12, level="core", needs="loops, f-strings, a seeded generator",
        hints=("For each ordered pair of different nouns: draw two different colours, write the true caption, exchange the two colours for the false one.",
               "random.permutation(colours)[:2] gives two different ones. The two captions must hold the same words, or a bag of words solves the probe.",
               "Put the right caption at place 0 and 1 in turn (len(asked) % 2), and return that place. Chance: one of two."),
        grade=grade_questions, reference=binding_questions,
        explanation="Everything but the one thing that is asked must be of no use: the same words in both captions, each place right half of the time, both orders of each pair, "
                    "colours drawn anew. Whoever looks for a shortcut finds none, and so 50 % means that the binding is not there.",
        passed="A bag of words, a fondness for the first answer, a favourite colour: none of them gets anywhere with your probe."),
    Exercise(
        "09.attack", "the success rate of a typographic attack", points=2, minutes=8, level="core", needs="boolean arrays, means",
        hints=("Which pictures can be fooled at all? Those that the model named rightly when nothing was written on them.",
               "Among these: the share whose answer is now the written word. Not: the share that is wrong now.",
               "Letters without sense cover the picture too. Subtract the share that turns to the written name under nonsense."),
        grade=grade_attack, reference=attack_rate,
        explanation="Three counts, each against one illusion. Pictures that were wrong before cannot be lost; a wrong answer that is not the word was not caused by reading; and "
                    "what nonsense of the same size brings about is the cost of covering, not of reading.",
        passed="What is left is reading, and nothing else."),
    Exercise(
        "09.grad_cam", "where a picture speaks for a text", points=2, minutes=6, level="core", needs="means over axes, broadcasting",
        hints=("One weight per channel: the mean of its gradient over height and width.",
               "Weight the maps, add up over the channels, then cut off what is negative.",
               "Divide by the largest value, but not by 0: max(found.max(), 1e-12)."),
        grade=grade_grad_cam, reference=grad_cam,
        explanation="The gradient says how much the cosine would rise if a channel grew; averaged over space it is the channel's weight. The sum asks all channels, for and "
                    "against, and only then what remains negative is dropped: it speaks against the text.",
        passed="That is all of Grad-CAM; the rest is colouring."),
)
