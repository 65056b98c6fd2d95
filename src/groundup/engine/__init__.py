"""The engine: one loop for every way of learning, the state that advances, the events after a step, and the
guard in front of every update. It knows no model family, no data format and no recipe."""
