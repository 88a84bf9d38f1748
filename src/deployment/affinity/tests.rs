use proptest::prelude::*;

use super::super::cooldown::Availability;
use super::*;

fn view(id: &str, weight: u32, load: f64) -> View {
    View {
        tried: false,
        max_retries: 0,
        weight,
        availability: Availability::Healthy,
        full_for: None,
        in_flight: 0,
        load,
        latency_us: None,
        used_share: 0,
        used_requests: 0,
        rate: None,
        id_hash: id_hash(id),
    }
}

fn group(weights: &[u32]) -> Vec<View> {
    weights.iter().enumerate().map(|(number, weight)| view(&format!("claude-{number}"), *weight, 0.0)).collect()
}

fn keys() -> impl Iterator<Item = u64> {
    (0..30_000_u32).map(|number| header_key(&number.to_le_bytes()))
}

#[test]
fn keys_are_shared_by_weight() {
    let views = group(&[5, 3, 2]);
    let mut counts = [0_u32; 3];
    for key in keys() {
        counts[home(key, &views).unwrap()] += 1;
    }
    for (count, weight) in counts.into_iter().zip([5, 3, 2]) {
        assert!(count.abs_diff(weight * 3_000) < 300, "{counts:?}");
    }
}

#[test]
fn only_the_keys_of_a_deployment_that_goes_away_move() {
    let views = group(&[1, 1, 1, 1]);
    for key in keys().take(2_000) {
        let own = home(key, &views).unwrap();
        let moved = first(key, &views, |view| view.id_hash != views[2].id_hash).unwrap();
        assert_eq!(own == moved, own != 2, "{key}");
    }
}

#[test]
fn the_order_is_the_same_in_every_process() {
    let views = group(&[1, 2, 3]);
    let homes: Vec<usize> =
        (0..12_u64).map(|key| home(key.wrapping_mul(0x9e37_79b9_7f4a_7c15), &views).unwrap()).collect();
    assert_eq!(homes, HOMES);
}

const HOMES: [usize; 12] = [1, 2, 2, 0, 2, 1, 1, 0, 2, 2, 2, 1];

#[test]
fn a_quiet_home_keeps_its_keys_and_a_busy_one_passes_them_on() {
    let key = keys().next().unwrap();
    let mut views = group(&[1, 1, 1]);
    let own = home(key, &views).unwrap();
    views[own].load = LOAD_FREE - 2.0;
    assert_eq!(pick(key, &views, |_| true), Some(own), "below the free load shares mean nothing");
    views[own].load = 200.0;
    for (number, view) in views.iter_mut().enumerate() {
        view.load = if number == own { 200.0 } else { 150.0 };
    }
    assert_eq!(pick(key, &views, |_| true), Some(own), "1.2 shares");
    for (number, view) in views.iter_mut().enumerate() {
        view.load = if number == own { 200.0 } else { 130.0 };
    }
    let next = pick(key, &views, |_| true).unwrap();
    assert_ne!(next, own, "1.3 shares");
    assert_eq!(Some(next), first(key, &views, |view| view.id_hash != views[own].id_hash), "the next in its order");
}

proptest! {
    /// However keys and loads lie, one that takes a request has at most a quarter more than its share.
    #[test]
    fn no_deployment_gets_more_than_its_share(
        loads in proptest::collection::vec((0.0..1_000.0_f64, 1_u32..10), 1..8),
        key in any::<u64>(),
    ) {
        let views: Vec<View> = loads
            .iter()
            .enumerate()
            .map(|(number, (load, weight))| view(&format!("d-{number}"), *weight, *load))
            .collect();
        let chosen = pick(key, &views, |_| true).unwrap();
        let total: f64 = views.iter().map(|view| view.load).sum::<f64>() + 2.0;
        let weights: f64 = views.iter().map(|view| f64::from(view.weight)).sum();
        let share = total * f64::from(views[chosen].weight) / weights;
        prop_assert!(views[chosen].load + 2.0 <= (share * 1.25).max(LOAD_FREE));
    }
}
