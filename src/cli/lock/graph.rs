//! Who waits for whom, as text for people and for Graphviz.

use std::fmt::Write;

use super::lines::length;
use crate::protocol::lock::{Because, RecentDeadlocks, WaitGraph};

/// A line for each wait.
pub(super) fn lines(graph: &WaitGraph) -> String {
    let mut lines = String::new();
    for edge in &graph.edges {
        // Writing into a string cannot fail.
        let _ = writeln!(
            lines,
            "{} waits for {}, {} {}, for {}",
            edge.owner,
            edge.waits_for_owner,
            because(edge.because),
            edge.resource,
            length(edge.waited_ms)
        );
    }
    if graph.edges.is_empty() {
        lines.push_str("nobody waits\n");
    }
    if graph.truncated {
        lines.push_str("… and more, which one reply cannot carry\n");
    }
    lines
}

/// The graph for Graphviz. Owners are nodes; a dashed edge is a wait for an earlier waiter.
pub(super) fn dot(graph: &WaitGraph) -> String {
    let mut dot = String::from("digraph waits {\n  rankdir=LR;\n  node [shape=box];\n");
    for edge in &graph.edges {
        let style = match edge.because {
            Because::Holder => "solid",
            Because::Queue => "dashed",
        };
        let _ = writeln!(
            dot,
            "  {} -> {} [label={}, style={style}];",
            quoted(&edge.owner),
            quoted(&edge.waits_for_owner),
            quoted(&edge.resource)
        );
    }
    if graph.truncated {
        dot.push_str("  \"…\" [shape=plaintext];\n");
    }
    dot.push_str("}\n");
    dot
}

/// Quotes a text for Graphviz.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

pub(super) fn because(because: Because) -> &'static str {
    match because {
        Because::Holder => "which holds",
        Because::Queue => "which is ahead of it in the queue for",
    }
}

/// Recent deadlocks, newest first.
pub(super) fn deadlocks(recent: &RecentDeadlocks) -> String {
    let mut lines = String::new();
    for deadlock in &recent.deadlocks {
        let _ = writeln!(
            lines,
            "{} ago, {} gave way:",
            length(deadlock.ago_ms),
            deadlock.victim
        );
        for edge in &deadlock.cycle {
            let _ = writeln!(
                lines,
                "  {} waits for {}, {} {}",
                edge.owner,
                edge.waits_for_owner,
                because(edge.because),
                edge.resource
            );
        }
    }
    if recent.deadlocks.is_empty() {
        lines.push_str("no recent deadlocks\n");
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::lock::Edge;

    fn graph() -> WaitGraph {
        let edge = |owner: &str, other: &str, because| Edge {
            owner: owner.to_owned(),
            waits_for_owner: other.to_owned(),
            resource: r#"a "b\c""#.to_owned(),
            because,
            waited_ms: 1500,
        };
        WaitGraph {
            edges: vec![
                edge("x", "y", Because::Holder),
                edge("z", "x", Because::Queue),
            ],
            truncated: false,
        }
    }

    #[test]
    fn names_survive_graphviz() {
        let dot = dot(&graph());
        let first = r#"  "x" -> "y" [label="a \"b\\c\"", style=solid];"#;
        assert!(dot.contains(first) && dot.contains("style=dashed"), "{dot}");
        assert!(
            dot.starts_with("digraph waits {\n") && dot.ends_with("}\n"),
            "{dot}"
        );
    }

    #[test]
    fn a_wait_is_a_line() {
        let said = lines(&graph());
        assert!(
            said.starts_with(r#"x waits for y, which holds a "b\c", for 1s 500ms"#),
            "{said}"
        );
        assert_eq!(lines(&WaitGraph::default()), "nobody waits\n");
    }
}
