use std::collections::HashSet;

use test_support::servers;

#[test]
fn names_are_unique_and_fit_every_server() {
    let names: HashSet<_> = (0..1_000).map(|_| servers::unique_name("some-prefix-of-24-letter")).collect();
    assert_eq!(names.len(), 1_000);
    for name in names {
        // The strictest of all: a container of Azure.
        assert!((3..=63).contains(&name.len()), "{name}");
        assert!(!name.contains("--") && !name.ends_with('-'), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
    }
}

#[test]
#[should_panic(expected = "is not a prefix")]
fn a_prefix_that_some_server_refuses_is_refused() {
    let _ = servers::unique_name("Has_Underscores");
}

#[test]
fn the_servers_of_the_script_are_found() {
    assert!(servers::mongo_rs_uri().contains("replicaSet="));
    assert!(servers::mongo_standalone_uri().starts_with("mongodb://"));
    assert!(servers::s3().endpoint.starts_with("http"));
    assert!(servers::moto_endpoint().starts_with("http"));
    assert!(servers::azure().endpoint.ends_with(&servers::azure().account));
}
