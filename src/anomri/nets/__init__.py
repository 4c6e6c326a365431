"""Networks and how they are run. Torch only: nothing here knows what a brain is."""
