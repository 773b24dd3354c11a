//! What lies in `deploy/`: alert rules and dashboards name metrics that there are, and are explained.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use chronos_db::Json;
use chronos_db::telemetry::{Metric, MetricKind};
use test_support::promtool;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap()
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

fn dashboards() -> Vec<(PathBuf, Json)> {
    let files = std::fs::read_dir(root().join("deploy/dashboards")).unwrap().map(|file| file.unwrap().path());
    let mut read: Vec<_> =
        files.map(|file| (file.clone(), Json::parse(std::fs::read(&file).unwrap()).unwrap())).collect();
    read.sort_by(|a, b| a.0.cmp(&b.0));
    read
}

/// What the panels ask for.
fn expressions(dashboard: &Json) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

fn metrics() -> impl Iterator<Item = &'static Metric> {
    chronos_db::telemetry::METRICS.iter().chain(chronow::METRICS)
}

/// The names that Prometheus knows a metric by.
fn series(metric: &Metric) -> Vec<String> {
    match metric.kind {
        MetricKind::Histogram => {
            ["bucket", "sum", "count"].iter().map(|end| format!("{}_{end}", metric.name)).collect()
        }
        MetricKind::Counter | MetricKind::Gauge => vec![metric.name.to_owned()],
    }
}

/// The metrics of ours that a text names.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| word.starts_with("chronos_") || word.starts_with("chronow_")).collect()
}

/// The names of the alerts.
fn alerts(rules: &str) -> Vec<&str> {
    rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

#[test]
fn alerts_and_dashboards_name_only_metrics_that_there_are() {
    let known: BTreeSet<String> = metrics().flat_map(series).collect();
    let rules = read("deploy/alerts.yml");
    let wrong = |text: &str| -> Vec<String> {
        named(text).into_iter().filter(|name| !known.contains(*name)).map(str::to_owned).collect()
    };
    let expressions = rules.lines().filter_map(|line| line.trim().strip_prefix("expr: "));
    for expression in expressions {
        assert!(!named(expression).is_empty() && wrong(expression).is_empty(), "{expression}");
    }
    let dashboards = dashboards();
    assert_eq!(dashboards.len(), 4);
    for (file, dashboard) in &dashboards {
        for expression in self::expressions(dashboard) {
            let wrong = wrong(&expression);
            assert!(!named(&expression).is_empty() && wrong.is_empty(), "{}: {wrong:?}", file.display());
        }
    }
}

/// The labels that an expression selects or groups by, with the names of metrics that they are asked of: of a
/// selector its own metric, of a grouping all of the expression.
fn labels_asked(expression: &str) -> Vec<(Vec<&str>, &str)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let all: Vec<&str> = named(expression).into_iter().collect();
    let mut found = Vec::new();
    for grouping in ["by (", "without ("] {
        for part in expression.split(grouping).skip(1) {
            let labels = part.split(')').next().unwrap().split(',').map(str::trim);
            found.extend(labels.map(|label| (all.clone(), label)));
        }
    }
    for (at, _) in expression.match_indices('{') {
        let before = &expression[..at];
        let name = &before[before.rfind(|c| !is_word(c)).map_or(0, |end| end + 1)..];
        let inner = &expression[at + 1..at + expression[at..].find('}').unwrap()];
        // Values are quoted, so a label stands before the first quote and behind every second one.
        let labels = inner.split('"').step_by(2).map(|part| part.trim_matches([',', ' ', '=', '!', '~']));
        found.extend(labels.filter(|label| !label.is_empty()).map(|label| (vec![name], label)));
    }
    found
}

#[test]
fn alerts_and_dashboards_ask_for_labels_that_the_metrics_have() {
    let rules = read("deploy/alerts.yml");
    let mut asked: Vec<String> =
        rules.lines().filter_map(|line| line.trim().strip_prefix("expr: ")).map(str::to_owned).collect();
    asked.extend(dashboards().iter().flat_map(|(_, dashboard)| expressions(dashboard)));
    let mut seen = 0;
    // Each side of an `or` is a question by itself.
    for expression in asked.iter().flat_map(|expression| expression.split(" or ")) {
        for (names, label) in labels_asked(expression) {
            seen += 1;
            for name in names {
                let metric =
                    metrics().find(|metric| series(metric).iter().any(|known| known == name)).unwrap();
                // What Prometheus adds.
                let is_added = label == "instance" || (label == "le" && name.ends_with("_bucket"));
                assert!(
                    is_added || metric.labels.contains(&label),
                    "{name} has no label `{label}`: {expression}"
                );
            }
        }
    }
    assert!(seen > 50, "{seen} labels");
    let example = r#"sum by (le, a) (rate(chronos_x_bucket{b!~"c|d", e="f"}[5m]))"#;
    let labels: Vec<&str> = labels_asked(example).into_iter().map(|(_, label)| label).collect();
    assert_eq!(labels, ["le", "a", "b", "e"]);
}

/// What alerts say of a metric in their texts: `{{ $labels.NAME }}`.
#[test]
fn texts_of_alerts_show_labels_that_their_question_leaves() {
    let rules = read("deploy/alerts.yml");
    for alert in rules.split("- alert: ").skip(1) {
        let expression = alert.lines().find_map(|line| line.trim().strip_prefix("expr: ")).unwrap();
        let left: Vec<&str> = labels_asked(expression).into_iter().map(|(_, label)| label).collect();
        for shown in alert.split("$labels.").skip(1) {
            let label = shown.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
            assert!(left.contains(&label), "`{label}` is not left by {expression}");
        }
    }
}

#[test]
fn every_metric_is_shown_by_a_dashboard() {
    let shown: Vec<String> =
        dashboards().iter().flat_map(|(_, dashboard)| self::expressions(dashboard)).collect();
    let shown: BTreeSet<&str> = shown.iter().flat_map(|expression| named(expression)).collect();
    let missing: Vec<_> =
        metrics().filter(|metric| !series(metric).iter().any(|name| shown.contains(name.as_str()))).collect();
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn dashboards_can_be_distinguished_and_their_panels_too() {
    let mut uids = BTreeSet::new();
    for (file, dashboard) in dashboards() {
        assert!(uids.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{}", file.display());
        assert!(!dashboard["title"].as_str().unwrap().is_empty());
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{}", file.display());
    }
}

#[test]
fn every_alert_is_explained_and_those_of_old_are_there() {
    let (rules, page) = (read("deploy/alerts.yml"), read("docs/operations.md"));
    let alerts = alerts(&rules);
    for old in ["ChronosHighErrorRate", "ChronosSlowOperations", "ChronosBackendDown"] {
        assert!(alerts.contains(&old), "{old}");
    }
    for alert in alerts {
        assert!(page.lines().any(|line| line.starts_with(&format!("| `{alert}` |"))), "{alert}");
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_rules_and_questions() {
    promtool(&["check", "rules", root().join("deploy/alerts.yml").to_str().unwrap()], "");
    let asked = dashboards();
    let asked = asked.iter().flat_map(|(_, dashboard)| self::expressions(dashboard));
    let rules: Vec<Json> = asked
        .enumerate()
        .map(|(n, expr)| chronos_db::json!({"record": format!("asked:{n}"), "expr": expr}))
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("asked.yml");
    // JSON is YAML.
    let groups = chronos_db::json!({"groups": [{"name": "asked", "rules": rules}]});
    std::fs::write(&file, groups.to_string()).unwrap();
    promtool(&["check", "rules", file.to_str().unwrap()], "");
}
