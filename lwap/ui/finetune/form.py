"""The form of a new run: data, what to train, the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import streamlit as st

from lwap import jobs
from lwap.encoding.sources import BUNDLED, BUNDLED_ID, is_bundled_name
from lwap.errors import ConfigError, LwapError
from lwap.registry import OBJECTIVES
from lwap.training.config import TrainConfig
from lwap.training.declarations import DEFAULT_OBJECTIVE
from lwap.training.presets import PRESETS, config_of
from lwap.ui import cache, widgets
from lwap.ui.finetune import checking, runs, training_data
from lwap.ui.finetune.checking import Check, Request
from lwap.ui.finetune.known import duration
from lwap.ui.finetune.settings import settings
from lwap.ui.finetune.training_data import Source
from lwap.ui.frame import say_error, say_outcome

if TYPE_CHECKING:
    from lwap.training.check import DataCheck
    from lwap.training.estimate import Estimate

_SAID, _TOKEN, _STARTED, _ASKED = "train_said", "train_token", "train_started", "train_asked"
_NAME, _ENCODER, _PRESET = "train_name", "train_encoder", "train_preset"


@dataclass(frozen=True, eq=False)
class Plan:
    """A run that can be started.

    Attributes:
        config: Its settings.
        data: Its rows.
        dev: Scored pairs; None where rows are held out.
    """

    config: TrainConfig
    data: Source
    dev: Source | None


def form() -> None:
    """Draw the form with the check of the data; start what it says."""
    left, middle, right = st.columns([5, 6, 4], gap="medium")
    card = st.container()
    with st.expander("Options", icon=":material/tune:", key="train_options"):
        options = st.container()
    data = dev = config = None
    with left:
        try:
            data, objective = training_data.data_box()
        except LwapError as error:
            say_error(error)
            objective = st.session_state.get("train_objective") or DEFAULT_OBJECTIVE
        try:
            dev = training_data.dev_box(objective)
            has_dev = True
        except LwapError as error:
            say_error(error)
            has_dev = False
    with middle:
        preset = _preset()
        encoder = _encoder(preset, objective)
        try:
            with options:
                chosen = settings(preset, objective, len(data.content) if data else 0)
            config = config_of(preset, objective, encoder=encoder, **chosen)
        except ConfigError as error:
            say_error(error)
    plan = Plan(config, data, dev) if config and data and has_dev else None
    found = _check(plan) if plan else None
    with right:
        _start_box(plan, found)
    if found is not None:
        with card:
            checking.card(found)


def _preset() -> str:
    def follow() -> None:
        """Let the base model follow the preset, unless it is one of the person's own."""
        usual = {_encoder_of(name, objective) for name in PRESETS for objective in OBJECTIVES}
        if st.session_state.get(_ENCODER) in usual:
            chosen = st.session_state[_PRESET]
            st.session_state[_ENCODER] = _encoder_of(chosen, DEFAULT_OBJECTIVE)

    chosen = widgets.row(
        "Preset",
        list(PRESETS),
        _PRESET,
        format_func=lambda name: PRESETS[name].title,
        on_change=follow,
        help="All other settings are under Options.",
    )
    st.caption(PRESETS[chosen].description)
    return chosen


def _encoder_of(preset: str, objective: str) -> str:
    name = config_of(preset, objective).encoder
    return BUNDLED if is_bundled_name(name) else name


def _encoder(preset: str, objective: str) -> str:
    """Draw the choice of the encoder; return its name as the config has it."""
    usual = _encoder_of(preset, objective)
    options = [usual, *([] if usual == BUNDLED else [BUNDLED]), *cache.tuned_names()]
    typed = st.session_state.get("model")
    if typed and typed not in options and not cache.is_checkpoint(typed):
        options.append(typed)
    chosen = st.selectbox(
        "Base model",
        options,
        key=_ENCODER,
        accept_new_options=True,
        persist_state="session",
        help="Where training starts: the bundled encoder, a checkpoint whose encoder was trained "
        "(its pooling is left behind), or type a Hugging Face id or a folder.",
    )
    return BUNDLED_ID if is_bundled_name(chosen) else chosen


def _check(plan: Plan) -> Check:
    sets = training_data.evaluation_sets()
    if plan.dev is not None:
        sets = {name: texts for name, texts in sets.items() if name != plan.dev.title}
    encoder = plan.config.encoder
    request = Request(
        config=plan.config,
        data=plan.data.sha256,
        dev=plan.dev.sha256 if plan.dev else "",
        evaluation=tuple(sets),
        is_asked=st.session_state.get(checking.FETCH) == encoder or checking.is_here(encoder),
    )
    found = checking.start(request, plan.data, plan.dev, sets, before=st.session_state.get(_ASKED))
    st.session_state[_ASKED] = request
    return found


def _start_box(plan: Plan | None, found: Check | None) -> None:
    st.text_input(
        "Name of the run",
        key=_NAME,
        placeholder="after its settings and the time",
        persist_state="session",
        help="Letters, digits, '-', '_' and '.'; its model gets the same name.",
    )
    problems = found.problems if found is not None else []
    st.button(
        "Start training",
        type="primary",
        width="stretch",
        key="train_start",
        disabled=plan is None or bool(problems),
        on_click=_start,
        args=(plan, found, st.session_state.setdefault(_TOKEN, 0)),
        help="Fix what this page reports first." if plan is None or problems else None,
    )
    say_outcome(*st.session_state.pop(_SAID, ("", "")))
    for problem in problems:
        say_error(problem)
    if problems or plan is None:
        return
    if found.estimate is not None:
        st.caption(
            f"Takes about {duration(found.estimate.total_seconds)} here"
            f"{_parts_words(found.estimate)}. It continues when you close this page."
        )
    else:
        st.caption("It runs in a process of its own and continues when you close this page.")


def _parts_words(estimate: Estimate) -> str:
    parts = [
        f"{name} {duration(seconds)}" for name, seconds in estimate.seconds.items() if seconds >= 1
    ]
    return f" ({', '.join(parts)})" if len(parts) > 1 else ""


def _start(plan: Plan | None, found: Check | None, token: int) -> None:
    """Make the run's folder and start its process; a callback."""
    if plan is None or st.session_state.get(_STARTED) == token:
        return  # the form changed under the click, or it is the second of two
    name = st.session_state.get(_NAME, "").strip() or None
    try:
        run = start(plan, name, found.result if found is not None else None)
    except LwapError as error:
        st.session_state[_SAID] = ("error", str(error))
        return
    st.session_state[_STARTED], st.session_state[_TOKEN] = token, token + 1
    st.session_state[_NAME] = ""
    runs.show_run(run.name)


def start(plan: Plan, name: str | None, checked: DataCheck | None = None) -> jobs.Run:
    """Start a run.

    Args:
        plan: Settings and data.
        name: What to call it; None for a name after its settings.
        checked: What was found in the data, if that is known already.

    Raises:
        LwapError: If it would be refused, or cannot be written or started.
    """
    from lwap.training.save import given_settings

    problems = (checked or checking.check_sources(plan.config, plan.data, plan.dev)).problems
    if problems:
        raise ConfigError(" ".join(problems))
    dev = plan.dev
    run = jobs.create(
        plan.config,
        plan.data.content,
        dev.content if dev else None,
        given=given_settings(plan.config),
        name=name,
        data_name=plan.data.title,
        data_sha256=plan.data.sha256,
        dev_name=dev.title if dev else "held-out",
        dev_sha256=dev.sha256 if dev else "",
        command=command(plan, name),
    )
    jobs.start(run)
    return run


def command(plan: Plan, name: str | None = None) -> str:
    """Return the command that gives a run again."""
    from lwap.training.save import command_of

    dev = plan.dev
    return command_of(
        plan.config,
        plan.data.shown,
        dev.shown if dev else None,
        kind="triplets" if plan.data.has_positives else "sentences",
        data_name=plan.data.title,
        dev_name=dev.title if dev else None,
        name=name,
    )
