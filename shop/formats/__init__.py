"""How staff read days and times: as in the timeline, and always with the zone."""
