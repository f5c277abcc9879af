"""How hidden states are called, everywhere: the embeddings, then layer 1 to layer L."""


def state_name(index: int) -> str:
    """Return the full name of hidden state `index`: "embeddings" for 0, else "layer 3".

    >>> state_name(0), state_name(3)
    ('embeddings', 'layer 3')

    Raises:
        ValueError: If `index` is negative.
    """
    if index < 0:
        raise ValueError(f"hidden states are numbered from 0, got {index}")
    return "embeddings" if index == 0 else f"layer {index}"


def state_tick(index: int) -> str:
    """Return the short name of hidden state `index` for a chart axis: "emb" for 0, else "3".

    >>> state_tick(0), state_tick(3)
    ('emb', '3')
    """
    return "emb" if state_name(index) == "embeddings" else str(index)


def state_names(num_states: int) -> list[str]:
    """Return the names of all S = L+1 hidden states in order.

    >>> state_names(3)
    ['embeddings', 'layer 1', 'layer 2']
    """
    return [state_name(index) for index in range(num_states)]
