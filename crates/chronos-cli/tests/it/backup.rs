//! `chronos backup`.

use std::fs;
use std::path::Path;

use crate::cli::Cli;

/// Damages every index of the backups of a collection below a folder.
fn damage_indexes(folder: &Path, of: &str) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            damage_indexes(&path, of);
        } else if path.extension().is_some_and(|extension| extension == "ndjson")
            && path.components().any(|part| part.as_os_str() == of)
        {
            fs::write(&path, "{}").unwrap();
        }
    }
}

#[test]
fn a_collection_that_cannot_be_backed_up_keeps_no_other_from_it() {
    let cli = Cli::new();
    let names = ["alpha", "beta", "gamma"];
    for name in names {
        cli.run(&["create", "-c", name, "{}"]).value();
    }
    assert_eq!(cli.run(&["backup", "--to", "away"]).lines().len(), 3);
    damage_indexes(&cli.folder().join("away"), "alpha");
    for name in names {
        cli.run(&["create", "-c", name, "{}"]).value();
    }
    let ran = cli.run(&["backup", "--to", "away"]);
    let reported: Vec<_> = ran.out().lines().map(|line| chronos_db::Json::parse(line).unwrap()).collect();
    let reported: Vec<_> =
        reported.iter().map(|done| (done["collection"].as_str(), done["cv"].as_i64())).collect();
    assert_eq!(reported, [(Some("beta"), Some(1)), (Some("gamma"), Some(1))]);
    assert!(ran.failed(1).contains("alpha"), "{ran:?}");
    assert_eq!(ran.err().lines().count(), 1, "{ran:?}");

    let ran = cli.run(&["backup", "-c", "nowhere", "-c", "alpha", "-c", "gamma"]);
    assert_eq!(ran.out().lines().count(), 2, "{ran:?}");
    assert!(ran.failed(1).contains("nowhere"), "{ran:?}");
}
