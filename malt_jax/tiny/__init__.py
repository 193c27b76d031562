"""The quickstart's base model: its corpus, its pretraining, and the weights in `model/`."""
