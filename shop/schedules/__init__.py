"""What runs by itself, and when: our Temporal Schedules.

A declaration (`declared`) decides when a schedule runs and what it starts; `syncing` brings it to the engine.
Whether it is paused is the operator's, and no sync touches it. Ours are known by a memo; what others have
scheduled is left alone.
"""
