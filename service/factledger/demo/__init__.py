"""The demonstration: five articles about Panjshir, August and September 2021, as batches of events.

`database` records them into a ledger of their own, on the days on which the desk would have; `story` asks that
ledger what was believed, when, and why.
"""
