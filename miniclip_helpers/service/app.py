"""The application: routes over an `Engine`, problems as plain JSON, an OpenAPI with examples."""

import contextlib
import urllib.parse

from .. import __version__, search
from ..errors import ImageError, MiniclipError, UsageError
from .batching import BusyError
from .guard import MAX_BODY, Guard, RefusedError
from .metrics import Metrics
from .shapes import LABEL_LETTERS, MOST_HITS, MOST_LABELS, MOST_LETTERS, MOST_SENTENCES, MOST_TEMPLATES, real_text, shapes

SIDES = (16, 1024)  # pixels of a served photo's longer side
ABOUT = "Searches an index of pictures or captions by words or by a picture, and names pictures by labels of your own."
ALWAYS = {401: "A token is needed.", 403: "A page of another site asked.", 413: "The body is too large.", 421: "The service does not go by this name.",
          500: "The service failed.", 503: "Too much is waiting, or the service is being stopped."}
NOWHERE = "nothing is here; what can be asked, and how, is in /openapi.json"
PICTURE = "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF."
ASKED = {400: "The body cannot be read.", 408: "The request came in too slowly.", 422: "The request is not what was expected."}


def create_app(engine, token=None, hosts=None, body=MAX_BODY):
    """The FastAPI application that serves an `Engine`. token: asked of every request but /health. hosts: the names in Host that are answered, None for all.
    body: bytes of a request with a picture at most. It closes the engine when it stops."""
    from fastapi import FastAPI, Security
    from fastapi.security import HTTPBearer

    @contextlib.asynccontextmanager
    async def lifespan(app):
        yield
        engine.close()

    metrics = Metrics(engine)
    # The pages /docs and /redoc load their scripts from other sites: they stay off. The token is told to the OpenAPI here, and checked by the `Guard`.
    app = FastAPI(title="MiniCLIP photo search", version=__version__, description=ABOUT, docs_url=None, redoc_url=None, redirect_slashes=False, lifespan=lifespan,
                  responses=problems(ALWAYS), generate_unique_id_function=lambda route: route.name,
                  dependencies=[Security(HTTPBearer(auto_error=False, description="The token of the service."))] if token else None)
    add_searches(app, engine)
    add_zero_shot(app, engine)
    add_photos(app, engine)
    add_state(app, engine, metrics)
    add_problems(app)
    app.add_middleware(Guard, metrics=metrics, token=token, hosts=hosts, body=body)
    return app


def problems(reasons):
    """The answers of an OpenAPI that tell a problem: {status: reason}."""
    return {status: {"model": shapes().Problem, "description": reason} for status, reason in reasons.items()}


def add_searches(app, engine):
    """POST /search/text and POST /search/image: the nearest of the index to words or to a picture, best first."""
    from fastapi import File, Form, UploadFile

    shape = shapes()

    def answer(hits, note=None):
        rows = [{"name": hit.name, "score": hit.score, "photo": f"/photos/{urllib.parse.quote(hit.name)}", "caption": search.text_of(engine.index, hit.name)} for hit in hits]
        return {"hits": rows, "note": note}

    @app.post("/search/text", response_model=shape.Answer, summary="Search by words", responses=problems(ASKED))
    async def search_text(question: shape.TextQuery):
        vector, note = await engine.text_vector(question.query)
        return answer(await engine.nearest(vector, question.k), note)

    @app.post("/search/image", response_model=shape.Answer, summary="Search by a picture", responses=problems(ASKED))
    async def search_image(image: UploadFile = File(description=PICTURE),  # noqa: B008  FastAPI's way
                           k: int = Form(5, ge=1, le=MOST_HITS, description="How many answers.", examples=[3])):
        return answer(await engine.nearest(await engine.picture_vector(await image.read()), k))


def add_zero_shot(app, engine):
    """POST /zero-shot: a picture and labels to probabilities, most likely first."""
    from typing import Annotated

    from fastapi import File, Form, UploadFile
    from pydantic import AfterValidator, StringConstraints

    from ..zero_shot import TEMPLATE

    label = Annotated[str, StringConstraints(min_length=1, max_length=LABEL_LETTERS), AfterValidator(real_text)]
    sentence = Annotated[str, StringConstraints(min_length=2, max_length=MOST_LETTERS), AfterValidator(real_text)]

    @app.post("/zero-shot", response_model=shapes().Guess, summary="Name a picture by labels of your own", responses=problems(ASKED))
    async def zero_shot(
        image: UploadFile = File(description=PICTURE),  # noqa: B008
        labels: list[label] = Form(min_length=2, max_length=MOST_LABELS, description="The labels, each a field of its own.", examples=[["apple", "dog"]]),  # noqa: B008
        templates: list[sentence] = Form([TEMPLATE], max_length=MOST_TEMPLATES, description="Sentences with {} for the label.", examples=[["a photo of a {}.", "a drawing: {}"]]),  # noqa: B008
    ):
        if len(labels) * len(templates) > MOST_SENTENCES:
            raise UsageError(f"{len(labels)} labels in {len(templates)} templates are more than {MOST_SENTENCES} sentences; give fewer of either")
        found, note = await engine.label_probabilities(await image.read(), labels, templates)
        return {"labels": [{"label": name, "probability": min(share, 1.0)} for name, share in found], "note": note}


def add_photos(app, engine):
    """GET /photos/NAME: a picture of the index, small and bare. 404 for a name that is not in it, 410 for a picture that is gone since."""
    from fastapi import Path, Query, Response

    answers = {200: {"content": {"image/jpeg": {}}, "description": "The picture, upright, without what its file says of place, time and people."}}
    answers |= problems({404: "No such name.", 410: "Gone since the index was made.", 422: ASKED[422]})

    @app.get("/photos/{name:path}", response_class=Response, summary="A picture of the index", responses=answers)
    async def photo(name: str = Path(description="A name out of an answer.", examples=["food/apple.png"]),
                    side: int = Query(512, ge=SIDES[0], le=SIDES[1], description="Pixels of the longer side at most.", examples=[256])):
        try:
            return Response(await engine.photo(name, side), media_type="image/jpeg", headers={"cache-control": "private, max-age=60"})
        except KeyError:
            raise RefusedError(404, "the index holds no picture of this name") from None
        except MiniclipError:  # its words hold the path of the folder, which is nobody's business
            raise RefusedError(410, "the picture is gone or damaged since the index was made") from None


def add_state(app, engine, metrics):
    """GET /health, which never asks for a token, and GET /metrics for Prometheus."""
    from fastapi import Response

    @app.get("/health", response_model=shapes().Health, summary="Whether the service works, and what it serves")
    async def health():
        return engine.state()

    @app.get("/metrics", response_class=Response, summary="Counts and times for Prometheus",
             responses={200: {"content": {"text/plain": {"example": "miniclip_requests_total 1.0"}}, "description": "Prometheus' text format."}})
    async def counts():
        text, kind = metrics.text()
        return Response(text, headers={"content-type": kind})


def add_problems(app):
    """Every problem in one shape. Checks of shape repeat no value that was sent: it may be large, private, or no text at all. Labels and templates that
    cannot work are named."""
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    def told(request, status, message, headers=None):
        return JSONResponse({"status": status, "message": message, "request_id": request.state.request_id}, status, headers)

    async def invalid(request, error):
        if [fault["loc"] for fault in error.errors()] == [("body",)] and "json" not in request.headers.get("content-type", ""):
            return told(request, 422, "body: expected JSON, with the header Content-Type: application/json")
        faults = [f"{'.'.join(str(part)[:40] for part in fault['loc'] if part != 'body') or 'body'}: {fault['msg']}" for fault in error.errors()[:5]]
        return told(request, 422, "; ".join(faults))

    async def ours(request, error):
        wrong = isinstance(error, (ImageError, UsageError))
        if not wrong:
            raise error
        return told(request, 422, str(error))

    def as_told(parts):
        async def handler(request, error):
            return told(request, *parts(error))
        return handler

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(MiniclipError, ours)
    app.add_exception_handler(HTTPException, as_told(lambda error: (error.status_code, NOWHERE if error.detail == "Not Found" else str(error.detail), error.headers)))
    app.add_exception_handler(RefusedError, as_told(lambda error: (error.status, error.message, error.headers)))
    app.add_exception_handler(BusyError, as_told(lambda error: (503, str(error), {"retry-after": "2"})))
