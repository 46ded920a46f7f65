"""Classifiers and, if they have the tasks for them, the moments over HTTP, and pages to try them.

A request may name one of several models (`models`), and one of a model's aims (`aims`).

`server` runs it. The event loop only reads and writes: whatever computes runs in the batcher's
thread, and what was sent is parsed in another one (`bodies`). `gate` says which requests come in,
`connections` how many connections may wait with none.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Union

import numpy as np
import pydantic_core
from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.security import APIKeyHeader
from prometheus_client import CONTENT_TYPE_LATEST, Histogram
from prometheus_client import generate_latest as exposition
from pydantic import (
    BeforeValidator,
    Field,
    FiniteFloat,
    ValidationError,
)
from starlette.exceptions import HTTPException
from typing_extensions import TypedDict

from viralbert.moments import outputs, ranking
from viralbert.moments.limits import Limits
from viralbert.moments.ranking import EmotionPeak, Found, Moment
from viralbert.moments.scores import Scores
from viralbert.moments.subtitles import Subtitles, read_subtitles
from viralbert.moments.units import Unit, split_units
from viralbert.serving.bodies import FORM, JSON, Body, media_type, read_file, read_json, readable
from viralbert.serving.gate import Gate
from viralbert.serving.limits import DEFAULTS, ServiceLimits
from viralbert.serving.models import Served, load
from viralbert.serving.predictor import Label, Labels, Prediction, Predictor, Task, check_moments
from viralbert.serving.refusals import STATUSES, Refusal
from viralbert.serving.request_batches import Batcher
from viralbert_utils.base.errors import DataError

MAX_WINDOWS = (
    1_000_000  # candidates for moments in one request; a video of two hours has some 30,000
)
STATIC = Path(__file__).parent / "static"
PAGE = {"/": "service.html", "/docs": "docs.html"} | {
    f"/{name}": name
    for name in (
        *("service.css", "service.js", "docs.js"),
        *("swagger-ui/swagger-ui.css", "swagger-ui/swagger-ui-bundle.js"),
    )
}
POLICY = (
    "default-src 'self'; img-src data:; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_REFUSAL = {"type": "object", "required": ["detail"], "properties": {"detail": {"type": "string"}}}
_QUESTION = {"text": ["Кот сам открыл дверь!", "Завтра обещают дождь."]}
_CUES = {
    "cues": [
        {"text": "Кот сам открыл дверь.", "start": 0.5, "end": 3.2},
        {"text": "И попросил зарплату!", "start": 3.4},
    ]
}
_COLOUR = Field(
    description="The colouring in a word: the most probable emotion; null for an empty text."
)
_CLASS = Field(description="The most probable class; null for an empty text.")
_PROBABILITY = Field(description="That of `class`; 0 for an empty text.")
# What stands in an answer for the two tasks that have fields of their own; any other task is a
# field itself.
_FIELDS: dict[str, dict[str, Any]] = {
    "virality": {"viral_score": float, "is_viral": bool},
    "emotions": {
        "emotions": list[Label],
        "probabilities": dict[str, float],
        "emotion": Annotated[Label | None, _COLOUR],
    },
}


@dataclass(frozen=True)
class ClassInfo:
    """A class of the model, and the probability from which it counts.

    The threshold is null if it never does, or if the task has no thresholds, but its most probable
    class for an answer.
    """

    name: str
    russian: str
    threshold: float | None


@dataclass(frozen=True)
class TaskInfo:
    """A task of the model; the note says if its thresholds are none that were tuned."""

    task: str
    problem_type: str
    classes: list[ClassInfo]
    note: str


@dataclass(frozen=True)
class ModelInfo:
    """A model that can be asked.

    `form` is what computes: `torch`, `onnx float32` or `onnx int8`. A request may name one of the
    aims, and then their thresholds decide.
    """

    name: str
    form: str
    tasks: list[TaskInfo]
    aims: list[str]
    finds_moments: bool
    note: str


@dataclass(frozen=True)
class PeakInfo(EmotionPeak):
    """An emotion of a moment, with its Russian name."""

    russian: str


@dataclass(frozen=True)
class MomentInfo(Moment):
    """A moment, times in seconds of the video's clock."""

    emotions: list[PeakInfo]  # type: ignore[assignment]


@dataclass(frozen=True, kw_only=True)
class MomentsInfo(Found):
    """The moments by rank, where the subtitles begin and how long they last in seconds, and what
    was repaired in them.

    Subtitles may begin anywhere (a timeline that starts at one hour, a part of a stream), and all
    times are theirs.
    """

    moments: list[MomentInfo]  # type: ignore[assignment]
    start_s: float
    duration_s: float
    repairs: list[str]


def create_app(
    model: Path | str | Mapping[str, Path | str],
    limits: ServiceLimits = DEFAULTS,
    api_key: str = "",
    device: str | None = None,
    precision: str = "auto",
    hosts: Sequence[str] = ("*",),
) -> FastAPI:
    """The service as an ASGI application.

    Args:
        model: Folder of any text classifier, or of its ONNX export, which is served without torch;
            or several, by the names under which they can be asked for. The first one answers
            whoever names none.
        limits: What it takes on.
        api_key: If given, requests below `/v1/` must carry it in the header `X-API-Key`.
        device: Passed on to `Predictor.load`.
        precision: Passed on to `Predictor.load`.
        hosts: Names, beside those of this machine, that a request's header Host may have; `*` any,
            for a server that looks at it itself.

    Raises:
        DataError: As `models.load`, or the key can be in no header: before any port is open.
    """
    gate = Gate(limits, api_key, hosts)
    loaded = load(model, device, precision)
    sizes = Histogram(
        "viralbert_batch_texts",
        "Texts computed together",
        buckets=[2**k for k in range(10)],
        registry=gate.registry,
    )
    batches = limits.batch, limits.wait_s, sizes.observe
    served = {
        name: Served(name, bert, Batcher(bert.predict, *batches)) for name, bert in loaded.items()
    }
    service = _Service(served, gate, limits)
    app = _new_app(service)
    _add_errors(app)
    _add_predict(app, service)
    _add_moments(app, service)
    _add_classes(app, service)
    _add_health(app, service)
    for path, name in PAGE.items():
        app.add_api_route(path, _page(name), include_in_schema=False)
    return app


@dataclass(frozen=True)
class _Service:
    """What the routes of one application share."""

    models: Mapping[str, Served]
    gate: Gate
    limits: ServiceLimits

    @property
    def first(self) -> Served:
        """The one that answers who names none."""
        return next(iter(self.models.values()))

    @property
    def has_moments(self) -> bool:
        return any(one.has_moments for one in self.models.values())

    @property
    def names(self) -> dict[str, Any]:
        """What the description says of a model's name."""
        text = "A model's name, as /v1/models lists them; the first one if not given."
        return {"description": text, "json_schema_extra": {"enum": list(self.models)}}

    @property
    def aims(self) -> dict[str, Any]:
        """What the description says of an aim."""
        aims = list(dict.fromkeys(aim for one in self.models.values() for aim in one.bert.aims))
        text = (
            "A purpose that thresholds were tuned for, if the model has it (see /v1/models); "
            "its usual thresholds decide if not given."
        )
        extra = {"enum": aims} if aims else {}
        return {"description": text, "max_length": 64, "json_schema_extra": extra}

    def model(self, name: str) -> Served:
        """A model by its name.

        Raises:
            Refusal: There is none of this name.
        """
        if name not in self.models:
            raise Refusal(422, f"model: expected one of {', '.join(self.models)}, found another")
        return self.models[name]

    def refusals(self, *without: int) -> dict[int | str, dict[str, Any]]:
        """The answers other than 200, as the description lists them; some statuses left out."""
        return {
            status: {"description": why, "content": {"application/json": {"schema": _REFUSAL}}}
            for status, why in STATUSES.items()
            if status not in without and (self.gate.api_key or status != 401)
        }

    def unguarded(self, *more: int) -> dict[int | str, dict[str, Any]]:
        """The refusals of a route that is always answered, and more statuses of its own."""
        return self.refusals(*(STATUSES.keys() - {400, 404, 405, 500, *more}))

    @property
    def dependencies(self) -> list[Any]:
        """The key, for the description only: the gate has looked at it before."""
        key = Depends(APIKeyHeader(name="X-API-Key", auto_error=False))
        return [key] if self.gate.api_key else []


def _new_app(service: _Service) -> FastAPI:
    """An application behind the gate, without routes."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for one in service.models.values():
                await stack.enter_async_context(one.batcher.working())
            yield

    known = dict.fromkeys(task for one in service.models.values() for task in one.bert.tasks)
    tasks = ", ".join(known)
    moments = "; moments of a video" if service.has_moments else ""
    say = "a model says" if len(service.models) == 1 else "models say"
    app = FastAPI(
        title="ViralBERT",
        version="1",
        summary=f"What {say} of Russian texts: {tasks}{moments}.",
        description="A score is a judgement by the annotation guide, never a forecast of views.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.gate = service.gate
    app.add_middleware(service.gate.around)
    return app


def _add_errors(app: FastAPI) -> None:
    """Answer every error in the service's form."""

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(ValidationError)
    async def invalid(request: Request, error: Exception) -> Response:
        return Refusal(422, readable(error.errors())).response  # type: ignore[attr-defined]

    @app.exception_handler(DataError)
    async def unusable(request: Request, error: Exception) -> Response:
        return Refusal(422, str(error)).response

    @app.exception_handler(HTTPException)
    async def misplaced(request: Request, error: HTTPException) -> Response:
        reason = {404: "nothing is here", 405: f"{request.method} is not answered here"}.get(
            error.status_code
        )
        detail = f"{reason}; /openapi.json says what is where" if reason else error.detail
        return Refusal(error.status_code, detail, headers=error.headers).response


def _add_predict(app: FastAPI, service: _Service) -> None:
    Text = Annotated[str, Field(max_length=service.limits.chars)]
    Texts = Annotated[list[Text], Field(min_length=1, max_length=service.limits.texts)]
    Name = Annotated[str, Field(**service.names)]
    Aim = Annotated[str, Field(**service.aims)]

    class Question(Body):
        """One text, or a list of them; for a model and an aim, if wished."""

        text: Annotated[Texts, BeforeValidator(_as_list, json_schema_input_type=Text | Texts)]
        model: Name = service.first.name
        aim: Aim | None = None

    examples = {name: {"value": _QUESTION | {"model": name}} for name in service.models}
    shown = {"examples": examples} if len(examples) > 1 else {"example": _QUESTION}
    content = {"application/json": {"schema": Question.model_json_schema()} | shown}
    kinds = [
        _answers(one, f" of {one.name}" if len(examples) > 1 else "")
        for one in service.models.values()
    ]

    @app.post(
        "/v1/predict",
        response_model=Union[tuple(kinds)],  # noqa: UP007
        openapi_extra={"requestBody": {"required": True, "content": content}},
        responses=service.refusals(),
        dependencies=service.dependencies,
    )
    async def predict(request: Request) -> JSONResponse:
        """What a model says of one text or many; in the order of the texts."""
        question = await read_json(request, Question)
        one = service.model(question.model)
        answers = await one.answers(question.text, question.aim)
        note = one.deciding(question.aim).note
        predictions = [_answer(one, answer) for answer in answers]
        return JSONResponse({"predictions": predictions} | ({"note": note} if note else {}))


def _cues_type(limits: ServiceLimits) -> Any:
    """The type of subtitles that come as JSON, as long as the limits allow."""
    Text = Annotated[str, Field(max_length=limits.chars)]

    class CueIn(Body):
        """What is said, and when, in seconds; without an end it is guessed from the next start and
        the text."""

        text: Text
        start: Annotated[FiniteFloat, Field(ge=0, le=1e6)]
        end: Annotated[FiniteFloat, Field(ge=0, le=1e6)] | None = None

    class Cues(Body):
        """Subtitles as a list."""

        cues: Annotated[list[CueIn], Field(min_length=1, max_length=limits.cues, fail_fast=True)]

    return Cues


def _add_moments(app: FastAPI, service: _Service) -> None:
    Cues = _cues_type(service.limits)
    Name = Annotated[str, Query(**service.names)]
    Aim = Annotated[str, Field(**service.aims)]
    file = {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"type": "string", "format": "binary"}},
    }
    content = {
        JSON: {"schema": _inlined(Cues.model_json_schema()), "example": _CUES},
        FORM: {"schema": file},
    }

    @app.post(
        "/v1/moments",
        response_model=MomentsInfo,
        openapi_extra={"requestBody": {"required": True, "content": content}},
        include_in_schema=service.has_moments,
        responses=service.refusals(),
        dependencies=service.dependencies,
    )
    async def find(
        request: Request,
        min_s: Annotated[FiniteFloat, Query(gt=0, le=600)] = 15,
        max_s: Annotated[FiniteFloat, Query(gt=0, le=600)] = 60,
        n: Annotated[int | None, Query(ge=1, le=100)] = None,
        model: Name = service.first.name,
        aim: Aim | None = None,
    ) -> JSONResponse:
        """Where in a video the moments are: from a subtitle file (SubRip, WebVTT, ASS, JSON), or
        from cues.

        The answer is what `viralbert moments` writes as `moments.json`, with `start_s`,
        `duration_s` and `repairs`.
        """
        one = service.model(model)
        check_moments(one.tasks(aim))
        wanted = Limits(min_s, max_s, n=n)
        read = await _sent_subtitles(request, one, service.limits, Cues)
        selection = await _select(one, read, wanted, aim)
        start = read.cues[0].start
        span = {"start_s": start, "duration_s": round(max(cue.end for cue in read.cues) - start, 3)}
        return JSONResponse(outputs.as_dict(selection) | span | {"repairs": read.repairs})


async def _sent_subtitles(
    request: Request, model: Served, limits: ServiceLimits, kind: Any
) -> Subtitles:
    """The subtitles of a request, from a form or from JSON.

    Raises:
        Refusal: As `read_json` and `read_file`, or there are more cues than the limits allow.
        DataError: As `read_subtitles`.
    """
    given: Any
    if media_type(request) == FORM:
        given = await read_file(request)
    else:
        cues = (await read_json(request, kind, f"{JSON} or {FORM}")).cues
        given = [cue.model_dump(exclude_none=True) for cue in cues]
    read = await model.batcher.run(read_subtitles, given)
    if len(read.cues) > limits.cues:
        raise Refusal(
            422,
            f"expected at most {limits.cues} cues, found {len(read.cues)}; send the video in parts",
        )
    return read


async def _select(model: Served, read: Subtitles, wanted: Limits, aim: str | None) -> Found:
    """The moments of subtitles, whose texts are computed together with those of other requests."""
    bert, batcher = model.deciding(aim), model.batcher

    def scores(texts: Sequence[str]) -> Scores:
        return _scores(bert, bert.predict(list(texts)))

    units = await batcher.run(_units, read, wanted)
    if units:
        answers = await batcher.answers([unit.text for unit in units])
        selection = await batcher.run(ranking.choose, units, _scores(bert, answers), wanted)
    else:  # says why
        selection = await batcher.run(ranking.find_moments, read.cues, scores)
    return replace(selection, note=f"{selection.note}; {bert.note}") if bert.note else selection


def _add_classes(app: FastAPI, service: _Service) -> None:
    Name = Annotated[str, Query(**service.names)]
    Aim = Annotated[str, Field(**service.aims)]
    asking: dict[str, Any] = {
        "responses": service.refusals(413, 415, 429),
        "dependencies": service.dependencies,
    }

    @app.get("/v1/models", **asking)
    async def models() -> list[ModelInfo]:
        """The models, the first one that which answers who names none."""
        return [
            ModelInfo(
                one.name,
                one.bert.form,
                _tasks(one.bert.tasks),
                list(one.bert.aims),
                one.has_moments,
                one.bert.note,
            )
            for one in service.models.values()
        ]

    @app.get("/v1/classes", **asking)
    async def classes(model: Name = service.first.name, aim: Aim | None = None) -> list[TaskInfo]:
        """A model's tasks with their classes, Russian names and thresholds."""
        return _tasks(service.model(model).tasks(aim))

    if any("emotions" in one.bert.tasks for one in service.models.values()):

        @app.get("/v1/emotions", **asking)
        async def emotion_classes(
            model: Name = service.first.name, aim: Aim | None = None
        ) -> list[ClassInfo]:
            """The emotions, their Russian names and their thresholds."""
            tasks = service.model(model).tasks(aim)
            if "emotions" not in tasks:
                raise Refusal(
                    422,
                    f"model {model}: expected one that knows emotions, found {', '.join(tasks)}; "
                    "/v1/models lists what each model knows",
                )
            return _classes(tasks["emotions"])


def _add_health(app: FastAPI, service: _Service) -> None:
    @app.get("/healthz", responses=service.unguarded())
    async def health() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "ok"}

    @app.get("/readyz", responses=service.unguarded(503))
    async def ready() -> dict[str, str]:
        """Whether it takes requests, and can answer them."""
        service.gate.check_open()
        batchers = [one.batcher for one in service.models.values()]
        busy_s = max(batcher.busy_s for batcher in batchers)
        if not all(batcher.is_working for batcher in batchers):
            raise Refusal(503, "the model's thread has ended; start the service again", 5)
        if busy_s > service.limits.timeout_s:
            raise Refusal(
                503, f"the model has been at one batch for {busy_s:.0f} s; nobody gets an answer", 5
            )
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response, responses=service.unguarded())
    async def metrics() -> Response:
        """Counters and times for Prometheus."""
        return Response(exposition(service.gate.registry), media_type=CONTENT_TYPE_LATEST)


def _as_list(value: object) -> object:
    if isinstance(value, str | list):
        return [value] if isinstance(value, str) else value
    raise pydantic_core.PydanticCustomError(
        "text_type", "Input should be a string, or a list of strings"
    )


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """Write out the definitions of a schema, which OpenAPI would look for elsewhere.

    One level of them is all there is.
    """
    definitions = schema.pop("$defs", {})
    schema["properties"]["cues"]["items"] = definitions["CueIn"]
    return schema


def _page(name: str) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        return FileResponse(
            STATIC / name, headers={"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"}
        )

    return page


def _answers(model: Served, which: str) -> Any:
    """The type of a model's answers: one with the fields of its tasks for each text."""
    fields: dict[str, Any] = {}
    if model.main_task is not None:
        fields |= {"class": Annotated[str | None, _CLASS]}
        fields |= {"probability": Annotated[float, _PROBABILITY]}
    for task in model.bert.tasks:
        fields |= _FIELDS.get(task, {task: Labels})
    # Dictionaries, because a task may have a name that no attribute could have.
    answer = TypedDict(f"Answer{which}", fields)  # type: ignore[misc]
    note = {"note": str} if model.bert.note else {}
    return TypedDict(f"Answers{which}", {"predictions": list[answer]} | note)  # type: ignore


def _answer(model: Served, prediction: Prediction) -> dict[str, Any]:
    """Make a prediction plain, for JSON, with the most probable class of the main task."""
    plain = prediction.as_dict()
    if model.main_task is None:
        return plain
    task, values = (
        model.bert.tasks[model.main_task],
        prediction.probabilities_of(model.main_task),
    )
    best = int(np.argmax(values))
    name = task.names[best] if values[best] > 0 else None
    if model.main_task == "emotions":
        named = {"name": name, "russian": task.russian[best], "probability": values[best]}
        plain["emotion"] = named if name else None
    return {"class": name, "probability": values[best]} | plain  # first what is looked for first


def _tasks(tasks: Mapping[str, Task]) -> list[TaskInfo]:
    return [
        TaskInfo(name, task.problem_type, _classes(task), task.note) for name, task in tasks.items()
    ]


def _classes(task: Task) -> list[ClassInfo]:
    values = task.thresholds.values if task.thresholds else (None,) * len(task.names)
    return [
        ClassInfo(name, russian, None if value is None or value > 1 else value)
        for name, russian, value in zip(task.names, task.russian, values, strict=True)
    ]


def _units(read: Subtitles, wanted: Limits) -> list[Unit]:
    """The units of speech.

    Raises:
        DataError: Choosing among their windows would need too much memory.
    """
    units = split_units(read.cues)
    starts = np.array([unit.start for unit in units])
    n_windows = int((np.searchsorted(starts, starts + wanted.max_s) - np.arange(len(units))).sum())
    if n_windows > MAX_WINDOWS:
        raise DataError(
            f"{len(units):,} sentences give {n_windows:,} windows of up to {wanted.max_s:g} s, "
            "at most "
            f"{MAX_WINDOWS:,} are weighed; lower max_s, or send the video in parts"
        )
    return units


def _scores(bert: Predictor, predictions: Sequence[Prediction]) -> Scores:
    viral = np.array([one.viral_score for one in predictions])
    emotions = np.array([list((one.probabilities or {}).values()) for one in predictions])
    thresholds = bert.tasks["emotions"].thresholds
    assert thresholds is not None  # beside virality every task is multi-label
    return Scores(viral, emotions, thresholds.names, np.array(thresholds.values))
