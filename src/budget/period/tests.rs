use super::*;

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

fn period(text: &str) -> Period {
    Period::parse(text).unwrap()
}

fn ms(text: &str, zone: &TimeZone) -> u64 {
    let civil: jiff::civil::DateTime = text.parse().unwrap();
    u64::try_from(civil.to_zoned(zone.clone()).unwrap().timestamp().as_millisecond()).unwrap()
}

#[test]
fn durations_are_read_and_written_alike() {
    for text in ["1s", "30s", "30m", "24h", "7d", "30d", "1w", "1mo", "120mo", "3653d"] {
        assert_eq!(period(text).to_string(), text);
        let json = serde_json::to_string(&period(text)).unwrap();
        assert_eq!(json, format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Period>(&json).unwrap(), period(text));
    }
    assert_eq!(period("007d"), period("7d"));
    for (text, error) in [
        ("", PeriodError::NotAPeriod),
        ("d", PeriodError::NotAPeriod),
        ("-1d", PeriodError::NotAPeriod),
        ("1.5h", PeriodError::NotAPeriod),
        ("1 d", PeriodError::NotAPeriod),
        (" 1d", PeriodError::NotAPeriod),
        ("1D", PeriodError::NotAPeriod),
        ("1y", PeriodError::NotAPeriod),
        ("1d1h", PeriodError::NotAPeriod),
        ("１d", PeriodError::NotAPeriod),
        ("30", PeriodError::NoUnit),
        ("0s", PeriodError::Zero),
        ("00mo", PeriodError::Zero),
        ("121mo", PeriodError::TooLong),
        ("3654d", PeriodError::TooLong),
        ("522w", PeriodError::TooLong),
        ("4294967295mo", PeriodError::TooLong),
        ("99999999999999999999s", PeriodError::TooLong),
    ] {
        assert_eq!(Period::parse(text), Err(error), "{text}");
    }
    let error = serde_json::from_str::<Period>("\"soon\"").unwrap_err().to_string();
    assert!(error.contains("'soon' is no duration") && error.contains("30d"), "{error}");
    assert!(serde_json::from_str::<Period>("30").is_err());
    assert_eq!(serde_json::from_str::<Period>("\"1\\u006do\"").unwrap(), period("1mo"));
}

#[test]
fn resets_snap_to_the_calendar() {
    let berlin = zone("Europe/Berlin");
    let at = ms("2026-11-22T23:42:17", &berlin); // A Sunday.
    for (text, start, end) in [
        ("30d", "2026-11-01T00:00", "2026-12-01T00:00"),
        ("1mo", "2026-11-01T00:00", "2026-12-01T00:00"),
        ("3mo", "2026-10-01T00:00", "2027-01-01T00:00"),
        ("12mo", "2026-01-01T00:00", "2027-01-01T00:00"),
        ("7d", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("1w", "2026-11-16T00:00", "2026-11-23T00:00"),
        ("1d", "2026-11-22T00:00", "2026-11-23T00:00"),
        ("24h", "2026-11-22T00:00", "2026-11-23T00:00"),
        ("1440m", "2026-11-22T00:00", "2026-11-23T00:00"),
        ("12h", "2026-11-22T12:00", "2026-11-23T00:00"),
        ("1h", "2026-11-22T23:00", "2026-11-23T00:00"),
        ("30m", "2026-11-22T23:30", "2026-11-23T00:00"),
        ("10s", "2026-11-22T23:42:10", "2026-11-22T23:42:20"),
    ] {
        let expected = Window { start_ms: ms(start, &berlin), end_ms: ms(end, &berlin) };
        assert_eq!(period(text).window(at, &berlin), expected, "{text}");
    }
    assert_eq!(period("5h").window(at, &berlin), since(0, 5 * 3_600_000, at));
    let fortnight = period("2w").window(at, &berlin);
    assert_eq!(fortnight.length_ms(), 14 * 86_400_000);
    assert_eq!(period("14d").window(at, &berlin), fortnight);
}

#[test]
fn days_follow_the_clock_on_the_wall() {
    let berlin = zone("Europe/Berlin");
    let hours = |text: &str, at: &str| period(text).window(ms(at, &berlin), &berlin).length_ms() / 3_600_000;
    assert_eq!([hours("1d", "2026-03-29T12:00"), hours("1d", "2026-10-25T12:00")], [23, 25]);
    assert_eq!([hours("12h", "2026-03-29T01:00"), hours("12h", "2026-10-25T01:00")], [11, 13]);
    assert_eq!([hours("1h", "2026-03-29T03:00"), hours("1h", "2026-10-25T02:30")], [1, 1]);
    // Midnight in Kathmandu is a quarter past the hour elsewhere.
    let kathmandu = zone("Asia/Kathmandu");
    let window = period("1h").window(ms("2026-11-22T23:42:17", &kathmandu), &kathmandu);
    assert_eq!(window.start_ms, ms("2026-11-22T23:00", &kathmandu));
}

#[test]
fn a_month_after_is_a_month_of_the_calendar() {
    let utc = TimeZone::UTC;
    assert_eq!(period("1mo").after(ms("2027-01-31T08:00", &utc), &utc), ms("2027-02-28T08:00", &utc));
    assert_eq!(period("30d").after(ms("2027-01-31T08:00", &utc), &utc), ms("2027-03-02T08:00", &utc));
    assert_eq!(period("1mo").after(u64::MAX, &utc), u64::MAX);
}

/// Moments around every change of clocks, and all over, in zones that do odd things: half an hour of summer time, a
/// change at midnight, one minute past it, a day left out.
#[test]
fn windows_tile_time() {
    let zones = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kathmandu",
        "Australia/Lord_Howe",
        "America/Havana",
        "America/St_Johns",
        "Pacific/Apia",
        "America/Sao_Paulo",
        "Africa/Casablanca",
        "Asia/Beirut",
    ];
    let periods = [
        "1s", "7s", "30s", "7m", "30m", "45m", "1h", "2h", "5h", "90m", "12h", "24h", "36h", "1d", "2d", "7d", "10d",
        "30d", "1w", "2w", "1mo", "5mo", "12mo", "120mo",
    ];
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        seed >> 20
    };
    for zone_name in zones {
        let zone = zone(zone_name);
        let start = Timestamp::from_second(0).unwrap();
        let changes = zone.following(start).take(400).filter_map(|change| {
            u64::try_from(change.timestamp().as_millisecond()).ok().filter(|at| *at < 4_000_000_000_000)
        });
        let mut moments: Vec<u64> = changes
            .flat_map(|at| [at - 3_600_001, at - 1, at, at + 1, at + 1_799_999, at + 3_600_000, at + 80_000_000])
            .collect();
        moments.truncate(700);
        moments.extend((0..60).map(|_| random() % 4_000_000_000_000));
        moments.extend([0, 1, 345_600_000]);
        for text in periods {
            let period = period(text);
            for at in &moments {
                let window = period.window(*at, &zone);
                let context = format!("{text} in {zone_name} at {at}: {window:?}");
                assert!(window.contains(*at), "{context}");
                assert_eq!(period.window(window.start_ms, &zone), window, "{context}");
                assert_eq!(period.window(window.end_ms - 1, &zone), window, "{context}");
                assert_eq!(period.window(window.end_ms, &zone).start_ms, window.end_ms, "{context}");
            }
        }
    }
}

#[test]
fn no_moment_is_out_of_range() {
    for text in ["1s", "1h", "12h", "5h", "1d", "1mo", "120mo"] {
        for at in [0, 253_402_300_799_999, 253_402_207_200_000, u64::MAX - 1] {
            let window = period(text).window(at, &zone("America/New_York"));
            assert!(window.contains(at) && window.length_ms() > 0, "{text} {at} {window:?}");
        }
    }
}

#[test]
fn the_current_window_is_remembered() {
    let berlin = zone("Europe/Berlin");
    let mut windows = Windows::new(berlin.clone());
    let now = ms("2026-11-22T23:42:17", &berlin);
    for step in 0..50 {
        let at = now + step * 7_000_000;
        for text in ["1h", "1d", "1mo"] {
            assert_eq!(windows.at(period(text), at), period(text).window(at, &berlin));
        }
    }
    for seconds in 1..=200 {
        let period = period(&format!("{seconds}s"));
        assert_eq!(windows.at(period, now), period.window(now, &berlin));
    }
    assert_eq!(windows.known.len(), REMEMBERED_MAX);
}
