"""The Evaluate page: which strategy, layer or model is better on labelled pairs."""
