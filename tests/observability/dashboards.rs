//! The dashboards' files, as Grafana takes them.

use crate::files;
use serde_json::Value;
use std::collections::BTreeSet;

/// A panel's expression, and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Query {
    pub(crate) place: String,
    pub(crate) expression: String,
}

/// Every expression of every panel, with its variables.
pub(crate) fn queries() -> Vec<Query> {
    let mut queries = Vec::new();
    for board in boards() {
        for panel in list(&board["panels"]) {
            let place = format!("{}, {}", text(&board["title"]), text(&panel["title"]));
            queries.extend(list(&panel["targets"]).iter().map(|target| Query {
                place: place.clone(),
                expression: text(&target["expr"]).to_owned(),
            }));
        }
    }
    queries
}

fn boards() -> Vec<Value> {
    let parse = |(path, text): (std::path::PathBuf, String)| {
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    files("grafana/dashboards", "json").into_iter().map(parse).collect()
}

#[test]
fn every_dashboard_can_be_pointed_elsewhere_and_leads_to_the_others() {
    let mut uids = BTreeSet::new();
    for board in boards() {
        let title = text(&board["title"]);
        assert!(
            uids.insert(text(&board["uid"]).to_owned()),
            "{title}: its uid is another's"
        );
        assert_eq!(board["tags"][0], "herald", "{title}");
        let link = &board["links"][0];
        assert_eq!(link["type"], "dashboards", "{title}");
        assert_eq!(link["tags"][0], "herald", "{title}");
        assert_eq!(link["includeVars"], true, "{title}");
        let variables = list(&board["templating"]["list"]);
        let variables: Vec<_> = variables.iter().map(|variable| text(&variable["name"])).collect();
        assert_eq!(variables, ["datasource", "job", "instance"], "{title}");
    }
    assert_eq!(uids.len(), 4);
}

#[test]
fn every_panel_says_what_it_shows_in_which_unit_and_has_its_place() {
    for board in boards() {
        let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
        for panel in list(&board["panels"]) {
            let title = text(&panel["title"]);
            assert!(
                text(&panel["description"]).ends_with('.'),
                "{title} says nothing of itself"
            );
            assert!(!text(&panel["fieldConfig"]["defaults"]["unit"]).is_empty(), "{title}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            assert!(ids.insert(panel["id"].as_u64()), "{title}: its id is another's");
            let at = &panel["gridPos"];
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|name| at[name].as_u64().expect("a place"));
            assert!(x + w <= 24, "{title} is too wide");
            for place in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(places.insert(place), "{title} lies over another");
            }
            for target in list(&panel["targets"]) {
                assert!(!text(&target["legendFormat"]).is_empty(), "{title}");
                let expression = text(&target["expr"]);
                let chosen = expression.contains("job=~\"$job\"") || expression.contains("ALERTS");
                assert!(chosen, "{title} shows every job: {expression}");
            }
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is no list"))
}
