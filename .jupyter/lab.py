"""Settings of `make lab`; nothing in the home folder is read or changed for them."""

# ruff: noqa: F821

# No host is asked for news, for a newer version, or for extensions to install.
c.LabApp.news_url = None
c.LabApp.check_for_updates_class = "jupyterlab.NeverCheckForUpdate"
c.LabApp.extension_manager = "readonly"
