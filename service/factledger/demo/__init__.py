"""The demonstration: five articles about Panjshir, August and September 2021, as batches of events."""
