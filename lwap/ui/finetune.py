"""The form of the Fine-tune page: data, what to train, the check, the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import streamlit as st

from lwap import jobs
from lwap.encoding.hardware import Precision
from lwap.encoding.sources import BUNDLED, BUNDLED_ID, is_bundled_name
from lwap.errors import ConfigError, LwapError
from lwap.pooling.declarations import DEFAULT_POOLING, poolings
from lwap.pooling.layer_attention import Query, Residual, Scale
from lwap.registry import OBJECTIVES
from lwap.training.config import Mode, TrainConfig
from lwap.training.declarations import DEFAULT_OBJECTIVE
from lwap.training.presets import PRESETS, config_of
from lwap.ui import cache, checking, runs, training_data
from lwap.ui.checking import Check, Request
from lwap.ui.frame import escape
from lwap.ui.runs import duration
from lwap.ui.training_data import Source

if TYPE_CHECKING:
    from lwap.training.check import DataCheck
    from lwap.training.estimate import Estimate

_SAID, _TOKEN, _STARTED, _ASKED = "train_said", "train_token", "train_started", "train_asked"
_NAME, _ENCODER, _PRESET, _FETCH = "train_name", "train_encoder", "train_preset", "train_fetch"
LEAST_LOOKS = 12  # at the dev set in a run
_SHOWN_NOTES = 3  # rows that are named for each reason


# --- the settings -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Field:
    """A setting of a run as the form shows it.

    Attributes:
        label: For a person.
        help: What it does.
        kind: "choice", "switch", "int", "float" or "rate".
        choices: Of a choice: value and what it is called.
        step: By which a number goes up and down.
        probe: A value beside the default, to see whether it would have an effect.
    """

    label: str
    help: str
    kind: str
    probe: Any
    choices: dict[str, str] | None = None
    step: float | None = None


def _named(*values: str) -> dict[str, str]:
    return {str(value): str(value) for value in values}


_TRAINED = {
    str(Mode.HEAD): "The pooling alone",
    str(Mode.LORA): "Adapters and pooling (LoRA)",
    str(Mode.FULL): "Everything",
}


def first() -> dict[str, Field]:
    """Return the settings that stand first, as they are declared now."""
    declared = poolings()
    return {
        "mode": Field(
            "What is trained",
            "The pooling on a frozen encoder takes a minute; adapters ten; everything takes "
            "longest.",
            "choice",
            Mode.FULL,
            _TRAINED,
        ),
        "pooling": Field(
            "Pooling",
            "; ".join(f"{name}: {entry.label}" for name, entry in declared.items()) + ".",
            "choice",
            next(name for name in declared if name != DEFAULT_POOLING),
            _named(*declared),
        ),
    }


GROUPS: dict[str, dict[str, Field]] = {
    "Pooling": {
        "query": Field(
            "Query",
            "Which states ask: all (the released code), or only the last (the paper).",
            "choice",
            Query.LAST,
            _named(*Query),
        ),
        "scale": Field(
            "Scale",
            "What the attention is divided by: the number of states, or the root of the dimension.",
            "choice",
            Scale.SQRT_DIM,
            _named(*Scale),
        ),
        "residual": Field(
            "Residual",
            "last_mean adds the last layer's mean, at a learned length: the encoder's own mean is "
            "where it starts.",
            "choice",
            Residual.LAST_MEAN,
            _named(*Residual),
        ),
        "layer_norm": Field(
            "Layer norm", "For encoders whose inner states are not normalised.", "switch", True
        ),
    },
    "Encoder": {
        "lora_rank": Field("Rank of the adapters", "More can learn more.", "int", 8, step=8),
        "lora_alpha": Field(
            "Alpha of the adapters", "Their strength is alpha by rank.", "int", 8, step=8
        ),
        "dropout": Field("Dropout", "Empty: the encoder's own.", "float", 0.2, step=0.05),
        "max_tokens": Field(
            "Tokens a sentence",
            "What is longer is cut; 0 is the encoder's limit.",
            "int",
            32,
            step=16,
        ),
        "precision": Field(
            "Precision",
            "auto takes bf16 where the hardware has it.",
            "choice",
            Precision.FP32,
            _named(*(str(value) for value in (Precision.AUTO, Precision.FP32, Precision.BF16))),
        ),
    },
    "Length": {
        "epochs": Field("Epochs", "Passes over the data.", "int", 2, step=1),
        "max_steps": Field("At most steps", "0 is no limit.", "int", 10, step=100),
        "batch_size": Field(
            "Batch size", "Rows a step, each compared with all others of it.", "int", 32, step=8
        ),
        "accumulation": Field(
            "Accumulation", "Batches a step; saves memory, adds no negatives.", "int", 2, step=1
        ),
        "mini_batch": Field(
            "Mini-batch",
            "Rows in memory at once, with the gradients of the whole batch; 0 takes it whole.",
            "int",
            8,
            step=8,
        ),
        "eval_steps": Field(
            "Steps between looks",
            "At the dev set. Empty: the preset's, fewer where the run is short.",
            "int",
            10,
            step=10,
        ),
        "patience": Field(
            "Patience", "Looks without a better score before it ends; 0 is never.", "int", 5, step=1
        ),
        "seed": Field("Seed", "Of start, order and dropout.", "int", 1, step=1),
    },
    "Optimiser": {
        "learning_rate": Field(
            "Learning rate", "At its peak: of the encoder, or of the head alone.", "rate", 1e-4
        ),
        "head_learning_rate": Field(
            "Learning rate of the pooling", "Beside an encoder that is trained.", "rate", 3e-4
        ),
        "warmup": Field("Warm-up", "Share of the steps, 0 to 1.", "float", 0.2, step=0.05),
        "weight_decay": Field("Weight decay", "Of AdamW.", "float", 0.1, step=0.01),
        "temperature": Field(
            "Temperature", "Of the loss: lower looks more at the nearest.", "float", 0.1, step=0.01
        ),
        "hard_negative_weight": Field(
            "Weight of hard negatives", "Added to a row's own; 0 is plain.", "float", 1.0, step=0.5
        ),
    },
}
_BY_MODE = ("epochs", "learning_rate", "head_learning_rate")  # whose defaults the mode gives
_DEFAULTS = {field.name: field.default for field in TrainConfig.__dataclass_fields__.values()}


def has_effect(name: str, objective: str, mode: str, pooling: str) -> bool:
    """Say whether a run of this kind would read a setting; the config itself is asked.

    >>> has_effect("lora_rank", "supervised", "lora", "lwap")
    True
    >>> has_effect("lora_rank", "supervised", "head", "lwap")
    False
    """
    probe = next(group[name].probe for group in GROUPS.values() if name in group)
    try:
        TrainConfig(objective=objective, mode=mode, pooling=pooling, **{name: probe})
    except ConfigError:
        return False
    return True


def defaults(preset: str, objective: str, mode: str) -> dict[str, Any]:
    """Return what a preset sets, and what the mode sets where another one was chosen."""
    chosen = config_of(preset, objective)
    found = chosen.to_dict()
    if mode != chosen.mode:
        found |= {
            name: getattr(TrainConfig(objective=objective, mode=mode), name) for name in _BY_MODE
        }
    return found


def fitting_eval_steps(usual: int, rows: int, epochs: int, batch_size: int, max_steps: int) -> int:
    """Return how many steps lie between two looks: the usual, fewer where a run is short.

    >>> fitting_eval_steps(20, rows=5880, epochs=3, batch_size=64, max_steps=0)
    20
    >>> fitting_eval_steps(20, rows=300, epochs=10, batch_size=32, max_steps=0)
    7
    """
    steps = rows // max(1, batch_size) * epochs
    steps = min(steps, max_steps) if max_steps else steps
    return max(1, min(usual, steps // LEAST_LOOKS))


def settings(preset: str, objective: str, rows: int) -> dict[str, Any]:
    """Draw the options; return a value for every setting but encoder and objective.

    What would have no effect is not drawn and keeps its default. `rows` are those that there are.

    Raises:
        ConfigError: If mode and pooling do not go together.
    """
    own = config_of(preset, objective).to_dict()
    columns = st.columns(2, gap="large")
    found: dict[str, Any] = {}
    for column, (name, field) in zip(columns, first().items(), strict=True):
        with column:
            found[name] = _draw(field, own[name], f"train_{preset}_{objective}_{name}")
    TrainConfig(objective=objective, **found)  # refuses what has nothing to train
    own = defaults(preset, objective, found["mode"])
    for column, (title, group) in zip(st.columns(len(GROUPS)), GROUPS.items(), strict=True):
        with column:
            st.markdown(f"**{title}**")
            drawn = [name for name in group if has_effect(name, objective, **found_kind(found))]
            for name, field in group.items():
                if name not in drawn:
                    found[name] = _DEFAULTS[name]
                    continue
                key = f"train_{preset}_{objective}_{name}"
                if name in _BY_MODE:  # whose defaults are not the preset's
                    key += f"_{found['mode']}"
                if name != "eval_steps":
                    found[name] = _draw(field, own[name], key)
                    continue
                length = {each: found[each] for each in ("epochs", "batch_size", "max_steps")}
                fitting = fitting_eval_steps(own[name], rows, **length)
                typed = _draw(field, None, key, f"{fitting}, as fits")
                found[name] = fitting if typed is None else typed
            if not drawn:
                st.caption("Nothing to choose here.")
    return found


def found_kind(found: dict[str, Any]) -> dict[str, str]:
    """Return mode and pooling of settings."""
    return {name: found[name] for name in ("mode", "pooling")}


def _draw(field: Field, default: Any, key: str, empty: str = "the encoder's own") -> Any:
    """Draw a setting; `empty` says what no value stands for, where there is none by default."""
    options = {"key": key, "help": field.help, "persist_state": "session"}
    if field.kind == "choice":
        choices = list(field.choices)
        return st.selectbox(
            field.label,
            choices,
            index=choices.index(str(default)),
            format_func=field.choices.get,
            **options,
        )
    if field.kind == "switch":
        return st.toggle(field.label, value=default, **options)
    options |= {"placeholder": empty} if default is None else {}
    if field.kind == "int":
        return st.number_input(field.label, value=default, step=int(field.step), **options)
    value = None if default is None else float(default)
    step = value / 10 if field.kind == "rate" else field.step
    return st.number_input(field.label, value=value, step=step, format="%g", **options)


# --- the form -----------------------------------------------------------------------------------


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
            _say(error)
            objective = st.session_state.get("train_objective") or DEFAULT_OBJECTIVE
        try:
            dev = training_data.dev_box(objective)
            has_dev = True
        except LwapError as error:
            _say(error)
            has_dev = False
    with middle:
        preset = _preset()
        encoder = _encoder(preset, objective)
        try:
            with options:
                chosen = settings(preset, objective, len(data.content) if data else 0)
            config = config_of(preset, objective, encoder=encoder, **chosen)
        except ConfigError as error:
            _say(error)
    plan = Plan(config, data, dev) if config and data and has_dev else None
    found = _check(plan) if plan else None
    with right:
        _start_box(plan, found)
    if found is not None:
        with card:
            check_card(found)


def _say(error: LwapError) -> None:
    st.error(escape(str(error)), icon=":material/error:")


def _preset() -> str:
    def follow() -> None:
        """Let the base model follow the preset, unless it is one of the person's own."""
        usual = {_encoder_of(name, objective) for name in PRESETS for objective in OBJECTIVES}
        if st.session_state.get(_ENCODER) in usual:
            chosen = st.session_state[_PRESET]
            st.session_state[_ENCODER] = _encoder_of(chosen, DEFAULT_OBJECTIVE)

    chosen = st.segmented_control(
        "Preset",
        list(PRESETS),
        default=next(iter(PRESETS)),
        format_func=lambda name: PRESETS[name].title,
        key=_PRESET,
        bind="query-params",
        persist_state="session",
        required=True,
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


# --- the check ----------------------------------------------------------------------------------


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
        is_asked=st.session_state.get(_FETCH) == encoder or checking.is_here(encoder),
    )
    found = checking.start(request, plan.data, plan.dev, sets, before=st.session_state.get(_ASKED))
    st.session_state[_ASKED] = request
    return found


def check_card(found: Check) -> None:
    """Draw what is known of the data and of the run."""
    with st.container(border=True, key="train_check"):
        if found.is_active:
            _follow(found)
        else:
            _card(found)


@st.fragment(run_every=0.5)
def _follow(found: Check) -> None:
    if not found.is_active:
        st.rerun()
    _card(found)


def _card(found: Check) -> None:
    result = found.result
    if result is None:
        if found.is_active:
            st.caption(f"**Check.** {found.stage} …")
        return
    rows, lengths, course, machine = st.columns(4)
    rows.markdown(_rows_words(result))
    lengths.markdown(_lengths_words(result, found))
    if result.lengths:
        with lengths:
            _histogram(result)
    course.markdown(_course_words(result))
    machine.markdown(_machine_words(found))
    if dropped := _dropped_words(result):
        st.caption(dropped)
    for warning in result.warnings:
        st.warning(escape(warning), icon=":material/info:")
    if not found.request.is_asked and not result.problems:
        encoder = found.request.config.encoder
        left, right = st.columns([4, 1], vertical_alignment="center")
        left.caption(
            f"'{escape(encoder)}' is not on this machine; the run fetches it from the hub. "
            "Lengths, time and memory are known once it is here."
        )
        if right.button("Fetch it now", key="train_fetch_now"):
            st.session_state[_FETCH] = encoder
            st.rerun()


def _rows_words(result: DataCheck) -> str:
    lines = [f"**{result.rows:,} {result.unit}** to train on"]
    if result.rows_held_out:
        lines.append(f"{result.rows_held_out:,} held out")
    lost = result.rows_read - result.rows_kept
    lines.append(f"{lost:,} of {result.rows_read:,} left out")
    sets = ", ".join(escape(leak.name) for leak in result.leaks)
    lines.append(f"Leaks into: {sets}" if sets else "No leaks into evaluation sets")
    return "  \n".join(lines)


def _dropped_words(result: DataCheck) -> str:
    parts = [
        f"**{escape(each.reason)}: {each.count:,}.** {escape(' '.join(each.notes[:_SHOWN_NOTES]))}"
        for each in result.dropped
    ]
    return "Left out. " + " ".join(parts) if parts else ""


def _lengths_words(result: DataCheck, found: Check) -> str:
    lengths = result.lengths
    if lengths is None:
        wait = f"{found.stage} …" if found.is_active else "not known yet"
        return f"**Tokens a sentence**  \n{wait}"
    limit = f"limit {lengths.limit:,}" if lengths.limit else "no limit"
    cut = f", {lengths.truncated:,} cut" if lengths.truncated else ""
    return (
        f"**{lengths.median:.0f} tokens** a sentence  \n"
        f"95 % up to {lengths.high:.0f}, longest {lengths.most:,}  \n{limit}{cut}"
    )


def _histogram(result: DataCheck) -> None:
    """Draw how many sentences have how many tokens, as small bars in the text's own colour."""
    counts = result.lengths.counts
    high = max(counts)
    bars = "".join(
        f'<i style="height:{max(1, round(22 * count / high)) if count else 0}px"></i>'
        for count in counts
    )
    st.html(
        "<style>.lengths{display:flex;align-items:flex-end;gap:1px;height:22px;opacity:.55}"
        ".lengths i{flex:1;max-width:9px;background:currentColor}</style>"
        f'<div class="lengths" role="img" aria-label="Sentences by tokens, from '
        f'{result.lengths.least} to {result.lengths.most}">{bars}</div>'
    )


def _course_words(result: DataCheck) -> str:
    lines = [f"**{result.steps:,} steps**", f"{result.steps_an_epoch:,} an epoch"]
    false = result.false_negatives
    if false is not None:
        lines.append(f"{100 * false.share:.2f} % false negatives")
    return "  \n".join(lines)


def _machine_words(found: Check) -> str:
    estimate = found.estimate
    if estimate is None:
        wait = f"{found.stage} …" if found.is_active else "not known yet"
        return f"**On this machine**  \n{wait}"
    lines = [f"**About {duration(estimate.total_seconds)}** on this machine"]
    lines += [
        f"{_gigabytes(each.total)} of {_gigabytes(each.free)} free memory"
        + ("" if each.device == "cpu" else f" on {each.device}")
        for each in estimate.memory
    ]
    lines.append(f"{_gigabytes(estimate.disk)} on disk")
    return "  \n".join(lines)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"


# --- the start ----------------------------------------------------------------------------------


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
        help="Mend what is said on this page first." if plan is None or problems else None,
    )
    kind, text = st.session_state.pop(_SAID, ("", ""))
    if kind:
        st.error(escape(text), icon=":material/error:")
    for problem in problems:
        st.error(escape(problem), icon=":material/error:")
    if problems or plan is None:
        return
    if found.estimate is not None:
        st.caption(
            f"Takes about {duration(found.estimate.total_seconds)} here"
            f"{_parts_words(found.estimate)}. It goes on when you close this page."
        )
    else:
        st.caption("It runs in a process of its own and goes on when you close this page.")


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
