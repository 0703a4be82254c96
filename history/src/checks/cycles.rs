//! Transactions have an order: no transaction reads from one that, by other records, comes after
//! it (G1c), and keys are written in one order (G0).
//!
//! Kafka interleaves the records of open transactions in a partition, so the order of records there
//! says nothing about transactions. Only keys do, because a program that gives a key promises that
//! transactions write it one after the other.
//!
//! Sans-IO.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::history::{History, StepKind};
use crate::names::Name;
use crate::seen::Seen;
use crate::verdict::{Kind, Verdict};

/// The reason why a transaction precedes another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Edge {
    /// The other one wrote the next version of this key.
    Write(Name),
    /// The other one read this value.
    Read(Name),
}

type Graph = Vec<Vec<(usize, Edge)>>;

pub(super) fn check(history: &History, seen: &Seen, verdict: &mut Verdict) {
    let mut graph: Graph = vec![Vec::new(); history.transactions.len()];
    add_writes(history, seen, &mut graph);
    for component in cyclic_components(&graph) {
        blame(history, verdict, &graph, Kind::WriteCycle, &component);
    }
    add_reads(history, seen, &mut graph);
    for component in cyclic_components(&graph) {
        let cycle = cycle(&graph, &component);
        if cycle.iter().any(|(_, edge)| matches!(edge, Edge::Read(_))) {
            blame(history, verdict, &graph, Kind::ReadCycle, &component);
        }
    }
}

/// Adds an edge from the writer of each version of a key to the writer of the next.
fn add_writes(history: &History, seen: &Seen, graph: &mut Graph) {
    let mut versions: Vec<(Name, Name, i32, i64, usize)> = Vec::new();
    for (index, write) in history.writes.iter().enumerate() {
        if let (Some(key), Some(transaction), Some(partition)) = (write.key, write.transaction, write.partition)
            && let Some(record) = seen.of_write[index].filter(|record| record.visible)
        {
            versions.push((write.topic, key, partition, record.offset, transaction));
        }
    }
    versions.sort_unstable();
    for pair in versions.windows(2) {
        let [(topic, key, _, _, from), (next_topic, next_key, _, _, to)] = [pair[0], pair[1]];
        if (topic, key) == (next_topic, next_key) && from != to {
            graph[from].push((to, Edge::Write(key)));
        }
    }
}

/// Adds an edge from the writer of each record to the transaction that read it.
fn add_reads(history: &History, seen: &Seen, graph: &mut Graph) {
    for step in &history.steps {
        let StepKind::Poll { transaction: Some(reader), records, .. } = &step.kind else { continue };
        let seen_there = seen.records.get(&step.place).map_or(&[][..], |records| records);
        for (offset, value) in records {
            let start = seen_there.partition_point(|record| record.offset < *offset);
            let mut at = seen_there[start..].iter().take_while(|record| record.offset == *offset);
            let write = at.find(|record| record.value == *value).and_then(|record| record.write);
            let writer = write.and_then(|write| history.writes[write].transaction);
            if let Some(writer) = writer.filter(|writer| writer != reader)
                && graph[writer].last() != Some(&(*reader, Edge::Read(*value)))
            {
                graph[writer].push((*reader, Edge::Read(*value)));
            }
        }
    }
}

/// Returns the strongly connected components with more than one node (Tarjan, without recursion).
fn cyclic_components(graph: &Graph) -> Vec<Vec<usize>> {
    const UNVISITED: usize = usize::MAX;
    let mut index = vec![UNVISITED; graph.len()];
    let mut low = vec![0; graph.len()];
    let mut on_stack = vec![false; graph.len()];
    let (mut stack, mut found, mut next) = (Vec::new(), Vec::new(), 0);
    for root in 0..graph.len() {
        if index[root] != UNVISITED {
            continue;
        }
        // The nodes on the path from the root, and for each the number of edges that were followed.
        let mut path = vec![(root, 0)];
        while let Some((node, edge)) = path.last_mut() {
            let node = *node;
            if *edge == 0 && index[node] == UNVISITED {
                (index[node], low[node]) = (next, next);
                next += 1;
                stack.push(node);
                on_stack[node] = true;
            }
            if let Some((to, _)) = graph[node].get(*edge) {
                *edge += 1;
                if index[*to] == UNVISITED {
                    path.push((*to, 0));
                } else if on_stack[*to] {
                    low[node] = low[node].min(index[*to]);
                }
                continue;
            }
            path.pop();
            if let Some((parent, _)) = path.last() {
                low[*parent] = low[*parent].min(low[node]);
            }
            if low[node] == index[node] {
                let start = stack.iter().rposition(|other| *other == node).unwrap_or(0);
                let component = stack.split_off(start);
                component.iter().for_each(|node| on_stack[*node] = false);
                if component.len() > 1 {
                    found.push(component);
                }
            }
        }
    }
    found
}

/// Returns a shortest cycle through the first node of a component: each node with the edge that
/// leads to the next. An edge of a read is preferred, because cycles of writes alone are known.
fn cycle(graph: &Graph, component: &[usize]) -> Vec<(usize, Edge)> {
    let inside: HashSet<usize> = component.iter().copied().collect();
    let edges = component.iter().flat_map(|from| graph[*from].iter().map(move |(to, edge)| (*from, *to, *edge)));
    let mut edges = edges.filter(|(_, to, _)| inside.contains(to));
    let Some(first) = edges.clone().find(|(.., edge)| matches!(edge, Edge::Read(_))).or_else(|| edges.next()) else {
        return Vec::new();
    };
    let (start, goal) = (first.1, first.0);
    let mut from: HashMap<usize, (usize, Edge)> = HashMap::new();
    let mut queue = VecDeque::from([start]);
    while let Some(node) = queue.pop_front().filter(|node| *node != goal) {
        for (to, edge) in graph[node].iter().filter(|(to, _)| inside.contains(to)) {
            if *to != start && !from.contains_key(to) {
                from.insert(*to, (node, *edge));
                queue.push_back(*to);
            }
        }
    }
    let mut cycle = vec![(first.0, first.2)];
    let mut node = goal;
    while let Some((before, edge)) = from.get(&node).filter(|_| node != start) {
        cycle.push((*before, *edge));
        node = *before;
    }
    cycle[1..].reverse();
    cycle
}

fn blame(history: &History, verdict: &mut Verdict, graph: &Graph, kind: Kind, component: &[usize]) {
    let line = component.iter().map(|node| history.transactions[*node].line).max().unwrap_or(0);
    verdict.blame(kind, line, || {
        let name = |node: usize| history.describe_transaction(node);
        let cycle = cycle(graph, component);
        let steps = cycle.iter().map(|(node, edge)| match edge {
            Edge::Write(key) => format!("{} wrote {} before", name(*node), history.names.text(*key)),
            Edge::Read(value) => format!("{} wrote {} that was read by", name(*node), history.names.text(*value)),
        });
        let steps: Vec<String> = steps.collect();
        let first = cycle.first().map_or("", |(node, _)| name(*node));
        format!("{} {first}", steps.join(" "))
    });
}
