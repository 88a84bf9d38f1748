use super::*;

fn view(weight: u32) -> View {
    View {
        tried: false,
        max_retries: 0,
        weight,
        availability: Availability::Healthy,
        full_for: None,
        in_flight: 0,
        load: 0.0,
        latency_us: None,
        used_share: 0,
        used_requests: 0,
        rate: None,
        id_hash: 0,
    }
}

fn asked(strategy: Strategy) -> Asked {
    Asked { strategy, affinity: None, first: true }
}

/// Where a hundred thousand requests go whose dice fall evenly.
fn shares<const N: usize>(strategy: Strategy, views: &[View; N]) -> [u32; N] {
    let mut counts = [0; N];
    let draws = 100_000_u64;
    for draw in 0..draws {
        counts[select(&asked(strategy), views, (u64::MAX / draws) * draw).unwrap().index] += 1;
    }
    counts
}

const ALL: [Strategy; 5] =
    [Strategy::SimpleShuffle, Strategy::LeastBusy, Strategy::LatencyBased, Strategy::UsageBased, Strategy::CostBased];

#[test]
fn equals_share_the_load_by_weight_in_every_strategy() {
    for strategy in ALL {
        let counts = shares(strategy, &[view(5), view(3), view(2)]);
        for (count, weight) in counts.into_iter().zip([5, 3, 2]) {
            assert!(count.abs_diff(weight * 10_000) <= 2, "{strategy:?} {counts:?}");
        }
    }
}

#[test]
fn drawing_first_and_selecting_where_that_fails_gives_the_same_shares() {
    let cools = Availability::Cooling { until: Instant::now() };
    let views = [
        view(5),
        View { availability: cools, ..view(40) },
        view(3),
        View { full_for: Some(Duration::from_secs(1)), ..view(7) },
        View { availability: Availability::Probe, ..view(2) },
    ];
    let sums = sums(views.iter().map(|view| view.weight));
    let mut dice = fastrand::Rng::with_seed(1);
    let mut counts = [0_u32; 5];
    for _ in 0..100_000 {
        let drawn = draw(&sums, dice.u64(..)).unwrap();
        let first = may_begin(&views[drawn]).then_some(drawn);
        let select = || select(&asked(Strategy::SimpleShuffle), &views, dice.u64(..)).unwrap().index;
        counts[first.unwrap_or_else(select)] += 1;
    }
    for (count, share) in counts.into_iter().zip([50_000, 0, 30_000, 0, 20_000]) {
        assert!(count.abs_diff(share) <= 600, "{counts:?}");
    }
    assert_eq!([0, u64::MAX].map(|random| draw(&sums, random)), [Some(0), Some(4)]);
    assert_eq!(draw(&[], 7), None);
}

#[test]
fn the_least_busy_one_for_its_weight_is_next() {
    let busy = |weight, in_flight| View { in_flight, ..view(weight) };
    assert_eq!(shares(Strategy::LeastBusy, &[busy(1, 3), busy(1, 2), busy(1, 4)]), [0, 100_000, 0]);
    assert_eq!(shares(Strategy::LeastBusy, &[busy(10, 9), busy(1, 1)]), [100_000, 0]);
}

#[test]
fn the_shortest_wait_counts_latency_and_what_is_under_way() {
    let takes = |latency_us: f64, in_flight| View { latency_us: Some(latency_us), in_flight, ..view(1) };
    assert_eq!(shares(Strategy::LatencyBased, &[takes(900.0, 0), takes(800.0, 0)]), [0, 100_000]);
    assert_eq!(shares(Strategy::LatencyBased, &[takes(900.0, 0), takes(800.0, 1)]), [100_000, 0]);
    let unknown = |in_flight| View { in_flight, ..view(1) };
    assert_eq!(shares(Strategy::LatencyBased, &[takes(900.0, 0), unknown(0)]), [0, 100_000], "a new one is tried");
    assert_eq!(shares(Strategy::LatencyBased, &[takes(900.0, 9), unknown(1)]), [100_000, 0], "by one at first");
}

#[test]
fn the_least_used_one_is_next() {
    let used = |used_share, used_requests| View { used_share, used_requests, ..view(1) };
    assert_eq!(shares(Strategy::UsageBased, &[used(500_000, 1), used(400_000, 9)]), [0, 100_000]);
    assert_eq!(shares(Strategy::UsageBased, &[used(0, 8), used(0, 9)]), [100_000, 0]);
}

#[test]
fn the_cheapest_one_is_next_and_one_without_a_price_the_last() {
    let costs = |rate| View { rate, ..view(1) };
    assert_eq!(shares(Strategy::CostBased, &[costs(Some(9)), costs(Some(7)), costs(None)]), [0, 100_000, 0]);
    let [.., unpriced] = shares(Strategy::CostBased, &[View { tried: true, ..costs(Some(9)) }, costs(None)]);
    assert_eq!(unpriced, 100_000);
}

#[test]
fn one_at_its_limits_is_passed_over_in_every_strategy() {
    let full = View { full_for: Some(Duration::from_secs(3)), ..view(100) };
    let fuller = View { full_for: Some(Duration::from_secs(4)), ..view(100) };
    for strategy in ALL {
        for affinity in [None, Some(7)] {
            let asked = Asked { affinity, ..asked(strategy) };
            assert_eq!(select(&asked, &[full, view(1), fuller], 0).unwrap().index, 1);
            let nothing = Nothing::Full { free_in: Duration::from_secs(3) };
            assert_eq!(select(&asked, &[full, fuller], 0), Err(nothing));
            assert_eq!(select(&asked, &[View { tried: true, ..full }], 0), Err(Nothing::Tried));
            assert_eq!(select(&asked, &[], 0), Err(Nothing::Tried));
        }
    }
}

#[test]
fn a_first_attempt_tries_a_half_open_one_as_it_would_a_healthy_one_and_a_retry_does_not() {
    let probe = View { availability: Availability::Probe, ..view(1) };
    let suspect = View { availability: Availability::Suspect, ..view(1) };
    let counts = shares(Strategy::SimpleShuffle, &[probe, view(1), suspect, view(1)]);
    assert!(counts.iter().all(|count| count.abs_diff(25_000) <= 2), "{counts:?}");
    for random in [0, u64::MAX / 2, u64::MAX] {
        let retry = Asked { first: false, ..asked(Strategy::SimpleShuffle) };
        assert_eq!(select(&retry, &[probe, suspect, view(1)], random).unwrap().index, 2);
        assert_eq!(select(&retry, &[probe, suspect], random).unwrap().index, 1);
    }
}

#[test]
fn when_all_cool_the_one_that_comes_back_first_is_used() {
    let now = Instant::now();
    let cooling =
        |seconds| View { availability: Availability::Cooling { until: now + Duration::from_secs(seconds) }, ..view(1) };
    for affinity in [None, Some(3)] {
        for random in [0, u64::MAX] {
            let asked = Asked { affinity, ..asked(Strategy::LeastBusy) };
            assert_eq!(select(&asked, &[cooling(9), cooling(2), cooling(5)], random).unwrap().index, 1);
            assert_eq!(select(&asked, &[cooling(9)], random).unwrap().index, 0, "one alone always gets the attempt");
        }
    }
}

#[test]
fn a_tried_deployment_is_never_picked_again() {
    let tried = View { tried: true, ..view(9) };
    for strategy in ALL {
        for random in [0, 1, u64::MAX / 2, u64::MAX] {
            assert_eq!(select(&asked(strategy), &[tried, view(1), tried], random).unwrap().index, 1);
            assert_eq!(select(&asked(strategy), &[tried, tried], random), Err(Nothing::Tried));
        }
    }
}

#[test]
fn the_ends_of_the_range_stay_inside() {
    assert_eq!(weighted([1, 9].into_iter(), 0), Some(0));
    assert_eq!(weighted([1, 9].into_iter(), u64::MAX), Some(1));
    assert_eq!(weighted([1, 0].into_iter(), u64::MAX), Some(0));
    assert_eq!(weighted([u32::MAX, u32::MAX].into_iter(), u64::MAX), Some(1));
    assert_eq!(weighted([0, 0].into_iter(), 5), None);
    assert_eq!(weighted(std::iter::empty(), 5), None);
}

#[test]
fn a_key_says_whether_it_got_home() {
    let mut views = ["a", "b", "c"].map(|id| View { id_hash: affinity::id_hash(id), ..view(1) });
    let asked = Asked { affinity: Some(42), ..asked(Strategy::CostBased) };
    let home = select(&asked, &views, 0).unwrap();
    assert_eq!(home.affinity, Some(Home::Hit));
    let there = |views: &[View]| select(&asked, views, 0).unwrap();
    let mut busy = views;
    busy[home.index].load = 1_000.0;
    assert_eq!(there(&busy).affinity, Some(Home::Busy));
    assert_ne!(there(&busy).index, home.index);
    views[home.index].full_for = Some(Duration::from_secs(1));
    assert_eq!(there(&views).affinity, Some(Home::Away));
    assert_eq!(there(&busy).index, there(&views).index, "the next in its order");
}
