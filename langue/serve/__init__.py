"""Models behind HTTP: OpenAI's routes and routes of tasks, on the engine."""
