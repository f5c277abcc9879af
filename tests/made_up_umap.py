"""A umap in the real one's place, for tests of the process that runs it.

It needs no compiling, gives the start times the seed, and does as a test plans. `conftest` has the
fixture, `umap`.
"""

import json
from pathlib import Path

MADE_UP = """
import json, os, sys, time
from pathlib import Path

print("a library that talks")
FOLDER = Path(os.environ["MADE_UP_UMAP"])


def planned():
    return json.loads((FOLDER / "plan.json").read_text("utf-8"))


def log(*words):
    with (FOLDER / "log").open("a") as file:
        print(*words, file=file)


log("import", os.getpid(), *sorted({"torch", "transformers", "streamlit"} & set(sys.modules)))
if planned()["import_error"]:
    raise ImportError(planned()["import_error"])


class UMAP:
    def __init__(self, **options):
        self.options = options

    def fit_transform(self, start):
        plan, bar = planned(), self.options["tqdm_kwds"]["file"]
        log("begin")
        print('{"done": 77, "total": 77}')
        for epoch in range(1, plan["epochs"] + 1):
            bar.write(f"\\r{epoch} {plan['epochs']}")
            bar.flush()
            time.sleep(0.01)
        bar.write("\\n")
        while plan["waits"] and not (FOLDER / "gate").exists():
            time.sleep(0.01)
        if plan["exit"] is not None:
            print("out of luck", file=sys.stderr)
            os._exit(plan["exit"])
        if plan["error"]:
            raise ValueError(plan["error"])
        log("end")
        return start * self.options["random_state"]
"""
PLAN = {"epochs": 3, "waits": False, "exit": None, "error": "", "import_error": ""}


class MadeUpUmap:
    """A folder with the made-up umap, what it is to do, and what it has done."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.gate = folder, folder / "gate"
        (folder / "umap.py").write_text(MADE_UP, "utf-8")

    def plan(self, **changes) -> None:
        """Say what the next fits do; `waits` is for `gate`, a file, after the last epoch."""
        (self.folder / "plan.json").write_text(json.dumps(PLAN | changes), "utf-8")

    def log(self) -> list[list[str]]:
        file = self.folder / "log"
        return (
            [line.split() for line in file.read_text("utf-8").splitlines()] if file.exists() else []
        )

    def clear(self) -> None:
        self.plan()
        for name in ("gate", "log"):
            (self.folder / name).unlink(missing_ok=True)
