"""All of Lightning and nothing else: training modules, callbacks, the run folder."""
