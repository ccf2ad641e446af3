"""Counts and times in Prometheus' format."""

BUCKETS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)


class Metrics:
    """A registry of its own: several services in one process, as in tests, do not share counts."""

    def __init__(self, engine):
        import prometheus_client as client

        self.registry = client.CollectorRegistry()
        self.requests = client.Counter("miniclip_requests", "Requests answered.", ["method", "route", "status"], registry=self.registry)
        self.seconds = client.Histogram("miniclip_request_seconds", "From the first byte asked to the last answered.", ["route"], buckets=BUCKETS, registry=self.registry)
        batches = client.Histogram("miniclip_text_batch", "New texts encoded together.", buckets=(1, 2, 4, 8, 16, 32), registry=self.registry)
        engine.texts.sizes = batches.observe
        for name, words, value in (
            ("miniclip_texts_waiting", "Texts that wait to be encoded.", lambda: len(engine.texts)),
            ("miniclip_vectors_remembered", "Query vectors in the cache.", lambda: len(engine.recent)),
            ("miniclip_cache_hits", "Query vectors found in the cache.", lambda: engine.recent.hits),
            ("miniclip_cache_misses", "Query vectors not found there.", lambda: engine.recent.misses),
            ("miniclip_index_vectors", "Vectors in the index.", lambda: len(engine.index)),
        ):
            client.Gauge(name, words, registry=self.registry).set_function(value)
        client.ProcessCollector(registry=self.registry)

    def count(self, method, route, status, seconds):
        """One answered request. Methods and routes are of fixed sets: a client cannot make the table grow."""
        method = method if method in ("GET", "POST", "HEAD", "OPTIONS") else "other"
        self.requests.labels(method, route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self):
        """All of it: (bytes, content type)."""
        import prometheus_client as client

        return client.generate_latest(self.registry), client.CONTENT_TYPE_LATEST
