"""Settings of `make lab`; nothing in the home folder is read or changed for them."""

# ruff: noqa: F821
from pathlib import Path

from ipykernel.ipkernel import IPythonKernel
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

# No host is asked for news, for a newer version, or for extensions to install.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
# Settings of JupyterLab's own: nobody is asked whether they want news.
c.LabApp.app_settings_dir = str(Path(__file__).resolve().parent / "settings")


class Lessons(AsyncLargeFileManager):
    """Notebooks as JupyterLab wants them, and files as they are committed.

    JupyterLab writes the version of Python and the kernel's name for people into a notebook as
    soon as it is opened, and marks it as changed. So it gets them beforehand, and they are taken
    out again when the notebook is saved.
    """

    async def get(self, path, content=True, **options):
        """Read a file, and add to a notebook what JupyterLab would."""
        model = await super().get(path, content, **options)
        if model["type"] == "notebook" and model["content"]:
            metadata = model["content"]["metadata"]
            if metadata.get("kernelspec", {}).get("name") == "python3":
                spec = KernelSpecManager().get_kernel_spec("python3")
                metadata["kernelspec"] = {
                    "display_name": spec.display_name,
                    "language": spec.language,
                    "name": "python3",
                }
                metadata["language_info"] = dict(IPythonKernel.language_info)
        return model

    async def save(self, model, path=""):
        """Write a file, a notebook without what depends on this machine's Python."""
        content = model.get("content")
        if model.get("type") == "notebook" and content:
            metadata = content["metadata"]
            if metadata.get("kernelspec", {}).get("name") == "python3":
                metadata["kernelspec"]["display_name"] = "Python 3"
                metadata["language_info"] = {"name": "python"}
        return await super().save(model, path)


c.ServerApp.contents_manager_class = Lessons
