from include.server.prometheus import Counter, Histogram, Metrics


def test_a_value_on_a_bound_counts_below_it_and_buckets_add_up() -> None:
    histogram = Histogram("seconds", "", (0.1, 1))
    for value in (0.1, 0.5, 1, 7):
        histogram.observe(value)
    assert list(histogram.samples('slot="a"')) == [
        'seconds_bucket{slot="a",le="0.1"} 1',
        'seconds_bucket{slot="a",le="1"} 3',
        'seconds_bucket{slot="a",le="+Inf"} 4',
        'seconds_sum{slot="a"} 8.6',
        'seconds_count{slot="a"} 4',
    ]


def test_labels_are_escaped_and_large_counts_stay_exact() -> None:
    counter = Counter("n", "", "field")
    counter.inc(('a"\\\n',), 12345678)
    assert list(counter.samples('slot="a"')) == ['n{slot="a",field="a\\"\\\\\\n"} 12345678']


def test_page_names_every_metric_once_and_ends_with_a_newline() -> None:
    metrics = Metrics("stable", "flights")
    metrics.register_gauge("perennial_age_seconds", "Age.", lambda: {(): 1.5})
    text = metrics.render().decode()
    assert 'perennial_age_seconds{slot="stable",model="flights"} 1.5' in text
    types = [line for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(types) == len(set(types))
    assert text.endswith("\n")
