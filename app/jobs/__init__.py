"""Work in the background: jobs, their queue, their progress, the models they share."""
