"""The page of `genstack web`: sample, edit and compare in the browser, and follow a training.

Each picture is made by a `Job`, which is one command with its settings: `samples.py`, `interpolation.py`,
`decoding.py` and `reconstruction.py`. `tabs/` holds the tabs, and `widgets/` what they share; only these and
`page.py` know Gradio, and import it when the page is built.
"""
