"""What comes in and goes out, checked: pydantic's models, with examples for the OpenAPI."""

import functools
import types
from typing import Annotated, Literal

MOST_HITS = 100
MOST_LETTERS = 1000
MOST_LABELS, LABEL_LETTERS, MOST_TEMPLATES, MOST_SENTENCES = 100, 100, 16, 400


def real_text(text):
    """`text` without spaces around it. `ValueError` for nothing. Half letters (lone surrogates), which JSON can write and UTF-8 cannot, pydantic refuses itself."""
    text = text.strip()
    if not text:
        raise ValueError("it is empty; say what to look for, like 'a red fruit'")
    return text


def whole(number):
    """JSON knows one kind of number: 3.0 is 3."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


@functools.cache
def shapes():
    """The models, by name: TextQuery, Hit, Answer, Share, Guess, Health, Problem. Made when first asked for, because pydantic takes time to load."""
    from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

    Text = Annotated[str, Field(min_length=1, max_length=MOST_LETTERS), AfterValidator(real_text)]

    class TextQuery(BaseModel):
        """Words to look for."""

        model_config = ConfigDict(extra="forbid", strict=True, json_schema_extra={"examples": [{"query": "a red fruit", "k": 3}]})
        query: Text = Field(description="What to look for, in words.")
        k: Annotated[int, BeforeValidator(whole)] = Field(5, ge=1, le=MOST_HITS, description="How many answers; fewer come where the index holds fewer.")

    class Hit(BaseModel):
        """One answer."""

        name: str = Field(description="The name in the index.")
        score: float = Field(description="The cosine with the query, -1 to 1.")
        photo: str = Field(description="Where this service has the picture.")
        caption: str | None = Field(None, description="The text, in an index of captions.")

    class Answer(BaseModel):
        """The nearest of the index, best first."""

        model_config = ConfigDict(json_schema_extra={"examples": [{"hits": [{"name": "food/apple.png", "score": 0.31, "photo": "/photos/food/apple.png"}]}]})
        hits: list[Hit]
        note: str | None = Field(None, description="What there is to say of the query, such as that it was too long and cut.")

    class Share(BaseModel):
        """A label and its probability."""

        label: str
        probability: float = Field(ge=0, le=1)

    class Guess(BaseModel):
        """The labels, best first; the probabilities add up to 1."""

        model_config = ConfigDict(json_schema_extra={"examples": [{"labels": [{"label": "apple", "probability": 0.9}, {"label": "dog", "probability": 0.1}], "note": None}]})
        labels: list[Share]
        note: str | None = None

    class Health(BaseModel):
        """What is served."""

        model_config = ConfigDict(json_schema_extra={"examples": [{"status": "ok", "holds": "pictures", "count": 950, "model": "mini", "index_on_disk": True}]})
        status: Literal["ok"]
        holds: Literal["pictures", "captions"]
        count: int = Field(ge=0)
        model: str
        index_on_disk: bool = Field(description="False when the index was deleted since; searches go on out of memory.")

    class Problem(BaseModel):
        """Why there is no answer."""

        model_config = ConfigDict(json_schema_extra={"examples": [{"status": 422, "message": "k: Input should be greater than or equal to 1", "request_id": "5f0c2b9e"}]})
        status: int
        message: str
        request_id: str

    return types.SimpleNamespace(TextQuery=TextQuery, Answer=Answer, Guess=Guess, Health=Health, Problem=Problem, Hit=Hit, Share=Share)
