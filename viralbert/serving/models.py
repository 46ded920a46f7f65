"""The models of a service: each under a name (`names`) that a request can choose."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from viralbert.serving.names import UNNAMED, check_name
from viralbert.serving.predictor import Prediction, Predictor, Task
from viralbert.serving.request_batches import Batcher
from viralbert_utils.base.errors import DataError


def load(
    models: Path | str | Mapping[str, Path | str],
    device: str | None = None,
    precision: str = "auto",
) -> dict[str, Predictor]:
    """Load models in the order in which they are given, and warm them up.

    Args:
        models: A folder, or name -> folder.
        device: Passed on to `Predictor.load`.
        precision: Passed on to `Predictor.load`.

    Raises:
        DataError: As `Predictor.load`, or there is no model, or a name could stand in no URL.
    """
    folders = models if isinstance(models, Mapping) else {UNNAMED: models}
    if not folders:
        raise DataError("expected a model or several to serve, found none")
    for name in folders:
        check_name(name)
    loaded = {}
    for name, folder in folders.items():
        loaded[name] = Predictor.load(folder, device, precision)
        loaded[name].predict("Разогрев.")  # the first call is slower than the rest
    return loaded


@dataclass(frozen=True)
class Served:
    """A model of a service, and the thread that computes with it alone."""

    name: str
    bert: Predictor
    batcher: Batcher[Prediction]

    @property
    def has_moments(self) -> bool:
        """Whether it has the tasks that moments need."""
        return {"emotions", "virality"} <= self.bert.tasks.keys()

    @property
    def main_task(self) -> str | None:
        """The task whose likeliest class is a text's: emotions, or else the first with several.

        A model of virality alone has none: it says how much, not what.
        """
        several = [name for name, task in self.bert.tasks.items() if len(task.names) > 1]
        return "emotions" if "emotions" in several else next(iter(several), None)

    @cached_property
    def _by_aim(self) -> dict[str, Predictor]:
        return {aim: self.bert.for_aim(aim) for aim in self.bert.aims}

    def deciding(self, aim: str | None) -> Predictor:
        """The predictor that decides by an aim; by the model's own thresholds without one.

        Raises:
            DataError: The model has no such aim.
        """
        if aim is None:
            return self.bert
        if aim not in self._by_aim:
            known = ", ".join(self._by_aim) or "it has none"
            raise DataError(
                f"aim: expected one of model {self.name} ({known}), found another; /v1/models "
                "lists them"
            )
        return self._by_aim[aim]

    def tasks(self, aim: str | None = None) -> dict[str, Task]:
        """The model's tasks, with the thresholds of an aim; errors as of `deciding`."""
        return self.deciding(aim).tasks

    async def answers(self, texts: list[str], aim: str | None = None) -> list[Prediction]:
        """One for each text, in order, decided by an aim; the same batches serve all aims.

        Raises:
            DataError: As `deciding`.
            Exception: Whatever computing these texts raises.
        """
        deciding = self.deciding(aim)
        found = await self.batcher.answers(texts)
        return found if aim is None else await self.batcher.run(deciding.decide, found)
