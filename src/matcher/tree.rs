//! Grows the index: every alternative under its most selective condition, and so on below where a list is long.

use super::condition::Condition;
use super::index::{Branch, Index, Node, Place, lengths_of, packed, salt};
use super::intervals::Intervals;
use super::keys::{Anchor, Anchors, Key, Kind};
use super::table::{NOTHING, Seed, Table};
use super::{Alternative, Alternatives};
use crate::event::FieldId;
use crate::pattern::Range;
use std::collections::BTreeMap;

/// Longest list that is looked through as it is.
const SHORT: usize = 16;
/// Deepest tree; each level costs a look-up for every value of the fields it asks.
const DEEPEST: usize = 6;
/// A condition that more events meet than this does not divide a list.
const TOO_COMMON: f64 = 0.5;
/// Fewest alternatives that share a condition without a key for it to be tested before they are looked at.
const SHARED: usize = 4;

/// An alternative on its way down.
#[derive(Clone)]
struct Item {
    alternative: u32,
    /// Conditions still to be tested, the cheapest first.
    left: Vec<u32>,
    /// Conditions that it is filed under already and that are still to be tested.
    used: Vec<u32>,
}

/// What items are filed under in one node.
#[derive(Default)]
struct Groups {
    keys: BTreeMap<(FieldId, Key), Vec<Item>>,
    /// By the bounds' bits.
    ranges: BTreeMap<(FieldId, [u64; 4]), (Range, Vec<Item>)>,
    tested: BTreeMap<u32, Vec<Item>>,
    rest: Vec<Item>,
}

/// What the values of one field lead to.
#[derive(Default)]
struct Filed {
    keys: Vec<(Key, Vec<Item>)>,
    ranges: Vec<(Range, Vec<Item>)>,
}

struct Grower<'c> {
    conditions: &'c [Condition],
    anchors: &'c [Option<Anchors>],
    seed: Seed,
    nodes: Vec<Node>,
    branches: u32,
    blob: Vec<u32>,
    lists: u32,
    keys: Vec<(u64, Place)>,
}

/// Files all alternatives.
pub(super) fn grow(
    conditions: &[Condition],
    anchors: &[Option<Anchors>],
    alternatives: &Alternatives,
    seed: Seed,
) -> Index {
    let mut uses = vec![0u32; conditions.len()];
    alternatives.all().flat_map(|it| it.conditions).for_each(|&condition| uses[condition as usize] += 1);
    let share = |condition: &u32| anchors[*condition as usize].as_ref().map_or(1.0, |it| it.share);
    let items = (0..).zip(alternatives.all()).map(|(number, Alternative { conditions, .. })| {
        // What many have in common is tested once an event; then what most often fails.
        let mut left = conditions.to_vec();
        left.sort_by(|a, b| {
            let rare = |condition: &u32| uses[*condition as usize] < 8;
            rare(a).cmp(&rare(b)).then(share(a).total_cmp(&share(b)))
        });
        Item { alternative: number, left, used: Vec::new() }
    });
    let items: Vec<Item> = items.collect();
    let mut grower = Grower {
        conditions,
        anchors,
        seed,
        nodes: Vec::new(),
        branches: 0,
        blob: Vec::new(),
        lists: 0,
        keys: Vec::new(),
    };
    let groups = grower.groups(items, 1.0);
    grower.node(groups, 0);
    let Grower { nodes, mut blob, lists, keys, .. } = grower;
    blob.shrink_to_fit();
    Index { seed, table: Table::new(&keys), nodes, blob, lists: lists as usize }
}

impl Grower<'_> {
    /// Divides items by the condition of each that fewest events meet.
    fn groups(&self, items: Vec<Item>, most: f64) -> Groups {
        let mut groups = Groups::default();
        for item in items {
            let open = item.left.iter().copied().filter(|it| !item.used.contains(it));
            let anchored = open.filter_map(|it| Some((self.anchors[it as usize].as_ref()?, it)));
            let best = anchored.min_by(|(a, at_a), (b, at_b)| a.share.total_cmp(&b.share).then(at_a.cmp(at_b)));
            match best.filter(|(anchors, _)| anchors.share <= most) {
                Some((anchors, condition)) => self.file(&mut groups, item, anchors, condition),
                None => self.leave(&mut groups, item),
            }
        }
        groups
    }

    fn file(&self, groups: &mut Groups, item: Item, anchors: &Anchors, condition: u32) {
        let field = self.conditions[condition as usize].field;
        for anchor in &anchors.all {
            let mut item = item.clone();
            let proves = matches!(anchor, Anchor::Range(_) | Anchor::Key(Key { proves: true, .. }));
            match proves {
                true => item.left.retain(|left| *left != condition),
                false => item.used.push(condition),
            }
            match anchor {
                Anchor::Key(key) => groups.keys.entry((field, key.clone())).or_default().push(item),
                Anchor::Range(range) => {
                    let bits = |bound: Option<(f64, bool)>| {
                        bound.map_or([0, 2], |(value, included)| [value.to_bits(), included.into()])
                    };
                    let ([a, b], [c, d]) = (bits(range.low), bits(range.high));
                    groups.ranges.entry((field, [a, b, c, d])).or_insert_with(|| (*range, Vec::new())).1.push(item);
                }
            }
        }
    }

    /// Files an item under a condition that is tested as it stands, if it has one that needs a value.
    fn leave(&self, groups: &mut Groups, item: Item) {
        let without_key = |it: &&u32| !self.conditions[**it as usize].absence && self.anchors[**it as usize].is_none();
        match item.left.iter().find(without_key).copied() {
            Some(condition) => groups.tested.entry(condition).or_default().push(item),
            None => groups.rest.push(item),
        }
    }

    fn node(&mut self, groups: Groups, depth: usize) -> u32 {
        let number = self.nodes.len();
        self.nodes.push(Node::default());
        let mut node = Node::default();
        let Groups { keys, ranges, tested, mut rest } = groups;
        for (condition, mut items) in tested {
            if items.len() < SHARED {
                rest.append(&mut items);
                continue;
            }
            items.iter_mut().for_each(|item| item.left.retain(|left| *left != condition));
            node.tested.push((condition, self.list(0, None, items, depth)));
        }
        let mut fields: BTreeMap<FieldId, Filed> = BTreeMap::new();
        for ((field, key), items) in keys {
            fields.entry(field).or_default().keys.push((key, items));
        }
        for ((field, _), (range, items)) in ranges {
            fields.entry(field).or_default().ranges.push((range, items));
        }
        for (field, filed) in fields {
            let branch = self.branch(field, filed, depth);
            node.branches.push(branch);
        }
        node.rest = (!rest.is_empty()).then(|| self.list(0, None, rest, DEEPEST));
        self.nodes[number] = node;
        number as u32
    }

    fn branch(&mut self, field: FieldId, Filed { keys, ranges }: Filed, depth: usize) -> Branch {
        self.branches += 1;
        let number = self.branches;
        let mut kinds = 0;
        let mut lengths: [Vec<u32>; 5] = Default::default();
        let mut masks = Vec::new();
        for (key, items) in keys {
            kinds |= 1 << key.kind as u16;
            if let Some(which) = lengths_of(key.kind) {
                lengths[which].push(key.operand.len() as u32);
            }
            if key.kind == Kind::Cidr {
                masks.extend(key.operand.first());
            }
            let place = self.list(number, Some(&key), items, depth);
            self.keys.push((self.seed.hash(salt(number, key.kind), &key.operand), place));
        }
        for list in &mut lengths {
            list.sort_unstable();
            list.dedup();
        }
        masks.sort_unstable();
        masks.dedup();
        let ranges: Vec<(Range, Place)> =
            ranges.into_iter().map(|(range, items)| (range, self.list(number, None, items, depth))).collect();
        let ranges = (!ranges.is_empty()).then(|| Intervals::new(&ranges));
        Branch { field, number, kinds, lengths: lengths.map(Into::into), masks: masks.into(), ranges }
    }

    /// Writes a list, the node below it first.
    fn list(&mut self, branch: u32, key: Option<&Key>, items: Vec<Item>, depth: usize) -> Place {
        let mut below = NOTHING;
        if items.len() > SHORT && depth < DEEPEST {
            let groups = self.groups(items.clone(), TOO_COMMON);
            let divided: usize = groups.keys.values().map(Vec::len).sum::<usize>()
                + groups.ranges.values().map(|(_, items)| items.len()).sum::<usize>();
            if divided * 2 > items.len() {
                below = self.node(groups, depth + 1);
            }
        }
        let place = self.blob.len() as Place;
        let operand = key.map_or(&[][..], |key| &key.operand);
        let what = (operand.len() as u32) << 8 | key.map_or(0, |key| key.kind as u32);
        self.blob.extend([self.lists, below, branch, what]);
        self.lists += 1;
        self.blob.extend(packed(operand));
        self.blob.push(items.len() as u32);
        for item in items {
            self.blob.extend([item.alternative, item.left.len() as u32]);
            self.blob.extend(item.left);
        }
        place
    }
}
