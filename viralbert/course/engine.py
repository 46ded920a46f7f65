"""How papermill runs a lesson here: nothing is written between cells."""

from __future__ import annotations

from typing import Any

from papermill.engines import NBClientEngine, NotebookExecutionManager, papermill_engines

NAME = "written at the end"


class WrittenAtTheEnd(NBClientEngine):
    """papermill's own engine without its writing between cells.

    That one checks and writes the whole notebook, figures included, before and after each of its
    hundred cells.
    """

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: NotebookExecutionManager, kernel_name: str, **kwargs: Any
    ) -> None:
        """Run the cells. However that ends, papermill then writes the copy, see `Engine`."""
        output_path, nb_man.output_path = nb_man.output_path, None
        try:
            super().execute_managed_notebook(nb_man, kernel_name, **kwargs)
        finally:
            nb_man.output_path = output_path


papermill_engines.register(NAME, WrittenAtTheEnd)
