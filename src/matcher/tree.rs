//! Grows the index: every alternative under its most selective condition, and so on below where a list is long.

use super::condition::Condition;
use super::index::{ANY, Grams, Index, Node, Place, Step, bit, gram, packed, salt};
use super::intervals::Intervals;
use super::keys::{Anchor, Anchors, Key, Kind};
use super::table::{NOTHING, Seed, Table, salted};
use super::{Alternative, Alternatives};
use crate::event::FieldId;
use crate::pattern::Range;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Longest list that is looked through as it is.
const SHORT: usize = 8;
/// Deepest tree; each level costs a look-up for every value of the fields it asks.
const DEEPEST: usize = 6;
/// A condition that more events meet than this does not divide a list.
const TOO_COMMON: f64 = 0.5;
/// Fewest items that one field divides before all others.
const CROWD: usize = 32;
/// Fewest conditions that such a field has.
const VARIED: usize = 4;
/// Most copies of an alternative that such fields make.
const COPIES: usize = 16;
/// How many times larger a node may become so that what does not name its common field stands in the lists of those that
/// do, and is looked up with them.
const GROWTH: usize = 2;
/// Most places that one condition takes in a node, its values times what shares it. Beyond that it is tested once an event,
/// and what shares it stands in one list.
const SPREAD: usize = 1 << 14;
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
    /// How many stand for the same alternative, at most.
    copies: usize,
}

/// What items are filed under in one node.
#[derive(Default)]
struct Groups {
    /// What is asked first; all else is in each of its lists too, so that one found is enough.
    common: BTreeMap<(FieldId, Key), Vec<Item>>,
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
    owners: u32,
    blob: Vec<u32>,
    lists: u32,
    steps: Vec<Step>,
    ranges: Vec<Intervals>,
    keys: Vec<(u64, Place)>,
    /// By alternative: rule, and the bits of its fields.
    alternatives: Vec<(u32, u32)>,
}

/// Files all alternatives.
pub(super) fn grow(
    conditions: &[Condition],
    anchors: &[Option<Anchors>],
    alternatives: &Alternatives,
    seed: Seed,
    fields: usize,
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
        Item { alternative: number, left, used: Vec::new(), copies: 1 }
    });
    let items: Vec<Item> = items.collect();
    let mut grower = Grower {
        conditions,
        anchors,
        seed,
        nodes: Vec::new(),
        owners: 0,
        blob: Vec::new(),
        lists: 0,
        steps: Vec::new(),
        ranges: Vec::new(),
        keys: Vec::new(),
        alternatives: alternatives.all().map(|it| (it.rule, bits(conditions, it.conditions))).collect(),
    };
    let groups = grower.groups(items, 1.0);
    grower.node(groups, 0);
    let Grower { seed, nodes, mut blob, lists, keys, mut steps, ranges, .. } = grower;
    steps.shrink_to_fit();
    blob.shrink_to_fit();
    let grams = grams(conditions, anchors, fields);
    Index { seed, table: Table::new(&keys), nodes, blob, lists: lists as usize, steps, ranges, grams }
}

/// The bits of the fields of conditions; [`ANY`] where one may hold by absence, or two fields share a bit.
fn bits(conditions: &[Condition], of: &[u32]) -> u32 {
    of.iter().map(|&it| &conditions[it as usize]).fold(0, |bits, condition| match bit(condition.field) {
        bit if condition.absence || bits & bit != 0 => ANY,
        bit => bits | bit,
    })
}

/// By field, all grams that conditions may be filed under.
fn grams(conditions: &[Condition], anchors: &[Option<Anchors>], fields: usize) -> Vec<Grams> {
    let mut all: Vec<Vec<u32>> = vec![Vec::new(); fields];
    for (condition, anchors) in conditions.iter().zip(anchors) {
        for anchor in anchors.iter().flat_map(|anchors| &anchors.all) {
            if let Anchor::Key(Key { kind: Kind::Gram, operand, .. }) = anchor {
                all[condition.field.0 as usize].push(gram(operand));
            }
        }
    }
    all.iter_mut().for_each(|grams| {
        grams.sort_unstable();
        grams.dedup();
    });
    all.iter().map(|grams| Grams::new(grams)).collect()
}

impl Grower<'_> {
    /// Divides items by a field that most have in common, such as the source of their events; without one, and what does
    /// not name it, by the condition of each that fewest events meet.
    fn groups(&self, items: Vec<Item>, most: f64) -> Groups {
        let mut groups = Groups::default();
        let (total, mut others) = (items.len(), items);
        if let Some(field) = self.common(&others) {
            let mut left = Vec::new();
            for mut item in others {
                match self.division(&item, field) {
                    Some((condition, anchors)) => {
                        item.copies *= anchors.all.len();
                        self.file(&mut groups, item, anchors, condition);
                    }
                    None => left.push(item),
                }
            }
            others = left;
            let lists = groups.keys.len();
            if others.len() * lists <= total * GROWTH && others.iter().all(|item| item.copies * lists <= COPIES) {
                let copies = others.iter().map(|item| Item { copies: item.copies * lists, ..item.clone() });
                groups.keys.values_mut().for_each(|list| list.extend(copies.clone()));
                groups.common = std::mem::take(&mut groups.keys);
            }
        }
        let best: Vec<Option<u32>> = others.iter().map(|item| self.best(item, most)).collect();
        let mut uses: BTreeMap<u32, usize> = BTreeMap::new();
        best.iter().flatten().for_each(|&condition| *uses.entry(condition).or_default() += 1);
        for (item, best) in others.into_iter().zip(best) {
            match best.and_then(|condition| Some((condition, self.anchors[condition as usize].as_ref()?))) {
                Some((condition, anchors)) if anchors.all.len().saturating_mul(uses[&condition]) <= SPREAD => {
                    self.file(&mut groups, item, anchors, condition);
                }
                Some((condition, _)) => groups.tested.entry(condition).or_default().push(item),
                None => self.leave(&mut groups, item),
            }
        }
        groups
    }

    /// The condition of an item that fewest events meet, of those that a value leads to.
    fn best(&self, item: &Item, most: f64) -> Option<u32> {
        let open = item.left.iter().copied().filter(|it| !item.used.contains(it));
        let anchored = open.filter_map(|it| Some((self.anchors[it as usize].as_ref()?.share, it)));
        let best = anchored.min_by(|(a, at_a), (b, at_b)| a.total_cmp(b).then(at_a.cmp(at_b)));
        best.filter(|(share, _)| *share <= most).map(|(_, condition)| condition)
    }

    /// The condition of an item that divides it by a field.
    fn division(&self, item: &Item, field: FieldId) -> Option<(u32, &Anchors)> {
        let of = |it: &&u32| self.conditions[**it as usize].field == field && self.divides(item, **it);
        let condition = *item.left.iter().find(of)?;
        Some((condition, self.anchors[condition as usize].as_ref()?))
    }

    /// The field that most items give an exact value, if they give it different ones.
    fn common(&self, items: &[Item]) -> Option<FieldId> {
        if items.len() < CROWD {
            return None;
        }
        let mut fields: BTreeMap<FieldId, (usize, BTreeSet<u32>)> = BTreeMap::new();
        for item in items {
            for &condition in item.left.iter().filter(|it| self.divides(item, **it)) {
                let (count, distinct) = fields.entry(self.conditions[condition as usize].field).or_default();
                *count += 1;
                if distinct.len() < VARIED {
                    distinct.insert(condition);
                }
            }
        }
        let fields =
            fields.into_iter().filter(|(_, (count, distinct))| count * 2 >= items.len() && distinct.len() >= VARIED);
        fields.max_by_key(|(field, (count, _))| (*count, Reverse(*field))).map(|(field, _)| field)
    }

    /// Whether a condition is of few exact values, so that an event with one value of the field leads to one list.
    fn divides(&self, item: &Item, condition: u32) -> bool {
        self.anchors[condition as usize].as_ref().is_some_and(|anchors| {
            let exact = |anchor: &Anchor| matches!(anchor, Anchor::Key(Key { kind: Kind::Text, proves: true, .. }));
            anchors.all.len() * item.copies <= COPIES && anchors.all.iter().all(exact)
        })
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
        let Groups { common, keys, ranges, tested, mut rest } = groups;
        node.common = self.steps(common, BTreeMap::new(), depth);
        for (condition, mut items) in tested {
            if items.len() < SHARED {
                rest.append(&mut items);
                continue;
            }
            items.iter_mut().for_each(|item| item.left.retain(|left| *left != condition));
            node.tested.push((condition, self.list(0, None, items, depth)));
        }
        node.steps = self.steps(keys, ranges, depth);
        node.rest = (!rest.is_empty()).then(|| self.list(0, None, rest, DEEPEST));
        self.nodes[number] = node;
        number as u32
    }

    /// Files what values lead to, by field.
    fn steps(
        &mut self,
        keys: BTreeMap<(FieldId, Key), Vec<Item>>,
        ranges: BTreeMap<(FieldId, [u64; 4]), (Range, Vec<Item>)>,
        depth: usize,
    ) -> (u32, u32) {
        let mut fields: BTreeMap<FieldId, Filed> = BTreeMap::new();
        for ((field, key), items) in keys {
            fields.entry(field).or_default().keys.push((key, items));
        }
        for ((field, _), (range, items)) in ranges {
            fields.entry(field).or_default().ranges.push((range, items));
        }
        let steps: Vec<Step> = fields.into_iter().flat_map(|(field, filed)| self.field(field, filed, depth)).collect();
        let first = self.steps.len() as u32;
        self.steps.extend(steps);
        (first, self.steps.len() as u32)
    }

    /// Files what the values of a field lead to, and says how they are looked up.
    fn field(&mut self, field: FieldId, Filed { keys, ranges }: Filed, depth: usize) -> BTreeSet<Step> {
        self.owners += 1;
        let owner = self.owners;
        let mut steps = BTreeSet::new();
        for (key, items) in keys {
            let len = match (key.kind, key.operand.first()) {
                (Kind::Cidr, Some(&bits)) => bits.into(),
                (Kind::Prefix | Kind::Suffix | Kind::CasePrefix | Kind::CaseSuffix | Kind::Gram, _) => {
                    key.operand.len()
                }
                _ => 0,
            };
            steps.insert(Step { field, kind: key.kind, len: len as u32, owner });
            let place = self.list(owner, Some(&key), items, depth);
            self.keys.push((salted(self.seed.hash(&key.operand), salt(owner, key.kind)), place));
        }
        let ranges: Vec<(Range, Place)> =
            ranges.into_iter().map(|(range, items)| (range, self.list(owner, None, items, depth))).collect();
        if !ranges.is_empty() {
            steps.insert(Step { field, kind: Kind::Range, len: self.ranges.len() as u32, owner });
            self.ranges.push(Intervals::new(&ranges));
        }
        steps
    }

    /// Writes a list, the node below it first.
    fn list(&mut self, owner: u32, key: Option<&Key>, items: Vec<Item>, depth: usize) -> Place {
        let mut below = NOTHING;
        if items.len() > SHORT && depth < DEEPEST {
            let groups = self.groups(items.clone(), TOO_COMMON);
            let divided: usize = groups.common.values().chain(groups.keys.values()).map(Vec::len).sum::<usize>()
                + groups.ranges.values().map(|(_, items)| items.len()).sum::<usize>();
            if divided * 2 > items.len() {
                below = self.node(groups, depth + 1);
            }
        }
        let place = self.blob.len() as Place;
        let operand = key.map_or(&[][..], |key| &key.operand);
        let what = (operand.len() as u32) << 8 | key.map_or(0, |key| key.kind as u32);
        self.blob.extend([self.lists, below, owner, what]);
        self.lists += 1;
        self.blob.extend(packed(operand));
        self.blob.push(items.len() as u32);
        for item in items {
            let (rule, fields) = self.alternatives[item.alternative as usize];
            self.blob.extend([rule, item.alternative, fields, item.left.len() as u32]);
            self.blob.extend(item.left);
        }
        place
    }
}
