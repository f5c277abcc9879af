"""Search: what would I find?"""

import streamlit as st

from lwap.ui import cache, frame, search, widgets

READING = """
The **same sentences ranked twice**, nearest to the query first, under two poolings of one model. A
line joins a sentence in both lists: orange rises from left to right, purple falls; a hollow mark
means that the other list does not have it. The bar behind a text is its cosine from zero to the
best of its list. Cosines of different strategies live on different scales, so compare ranks.

Watch for sentences that **answer in other words** against those that **repeat the words** and mean
something else. One query is an anecdote and has no gold answer here: it raises a question, which
*Evaluate* settles on scored data.

Click a result to see its cosine with the query **layer by layer**, the weight that the layers get
in both, and what the cosine loses or gains without each. Beside the lists: which layers the query's
own vector is read from.
"""

frame.header("Search", "What would I find?", READING)
model = frame.model_name()

with frame.messages():
    query, note = search.query_box("q")
    choices = st.container()
    sentences = search.sentence_box("c")
    search.say_what_to_look_for(note, query, sentences)
    facts = cache.facts(model)
    with choices:
        first, second, count = search.choices(facts)
    search.check_request(query, sentences)
    with widgets.progress("Sentences encoded", len(sentences)) as progress:
        # As many as a list can have: a longer or shorter one is a matter of showing it.
        results = cache.search(model, sentences, query, [first, second], search.MOST, progress)
    search.say_what_was_read(results, facts)
    lists = search.lists_of(results, first, second, count)
    left, right = st.columns([5, 3], gap="medium")
    with left:
        search.rank_changes(results, lists)
    with right:
        search.query_attention(model, results)
    search.one_result(model, results, lists)
    search.all_ranks(results)
