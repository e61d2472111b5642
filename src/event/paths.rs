//! The paths some rule names, as a tree over key segments.
//!
//! A path is its keys joined with dots, so a key that holds a dot descends several segments at once.

/// A path named by some rule, dense per tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FieldId(pub u32);

/// A place in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Branch(u32);

struct Child {
    /// The segment's first eight bytes.
    head: u64,
    segment: Box<[u8]>,
    to: u32,
}

#[derive(Default)]
struct Point {
    /// By head.
    children: Vec<Child>,
    field: Option<FieldId>,
}

/// Immutable tree of named paths. Built by [`PathTreeBuilder`].
pub struct PathTree {
    points: Vec<Point>,
    fields: u32,
}

/// Collects paths, then becomes a [`PathTree`].
#[derive(Default)]
pub struct PathTreeBuilder {
    points: Vec<Point>,
    paths: Vec<Vec<u8>>,
}

/// A key segment as it is looked up: its first eight bytes as one word, zeros behind a shorter one.
#[derive(Clone, Copy)]
struct Segment<'k> {
    head: u64,
    bytes: &'k [u8],
}

impl<'k> Segment<'k> {
    fn new(bytes: &'k [u8]) -> Self {
        let mut word = [0; 8];
        for (to, from) in word.iter_mut().zip(bytes) {
            *to = *from;
        }
        Self { head: u64::from_le_bytes(word), bytes }
    }

    /// As [`Segment::new`], with one load: at least eight bytes can be read from `at` on.
    fn read(text: &'k [u8], at: usize, len: usize) -> Self {
        let bytes = &text[at..at + len];
        match text.get(at..at + 8).and_then(|word| <[u8; 8]>::try_from(word).ok()) {
            Some(word) if len >= 8 => Self { head: u64::from_le_bytes(word), bytes },
            Some(word) => Self { head: u64::from_le_bytes(word) & ((1 << (8 * len)) - 1), bytes },
            None => Self::new(bytes),
        }
    }

    fn has_dot(&self) -> bool {
        // Whether a byte of the head is a dot (Bit Twiddling Hacks, "Determine if a word has a byte equal to n").
        let flipped = self.head ^ 0x2E2E_2E2E_2E2E_2E2E;
        let dots = flipped.wrapping_sub(0x0101_0101_0101_0101) & !flipped & 0x8080_8080_8080_8080;
        dots != 0 || (self.bytes.len() > 8 && self.bytes[8..].contains(&b'.'))
    }

    fn is(&self, child: &Child) -> bool {
        child.head == self.head
            && child.segment.len() == self.bytes.len()
            && (self.bytes.len() <= 8 || child.segment[8..] == self.bytes[8..])
    }
}

/// Children beyond which halving beats looking at each.
const FEW: usize = 12;

fn search(children: &[Child], segment: Segment<'_>) -> Option<u32> {
    let children = match children.len() {
        0..=FEW => children,
        _ => {
            let from = children.partition_point(|child| child.head < segment.head);
            let to = children.partition_point(|child| child.head <= segment.head);
            &children[from..to]
        }
    };
    children.iter().find(|child| segment.is(child)).map(|child| child.to)
}

impl PathTreeBuilder {
    /// The field of a dotted path, made at its first mention.
    pub fn field(&mut self, path: &[u8]) -> FieldId {
        if self.points.is_empty() {
            self.points.push(Point::default());
        }
        let mut point = 0;
        for segment in path.split(|&b| b == b'.') {
            let segment = Segment::new(segment);
            point = match search(&self.points[point].children, segment) {
                Some(to) => to as usize,
                None => {
                    let to = self.points.len();
                    let child = Child { head: segment.head, segment: segment.bytes.into(), to: to as u32 };
                    let children = &mut self.points[point].children;
                    let slot = children.partition_point(|known| known.head < child.head);
                    children.insert(slot, child);
                    self.points.push(Point::default());
                    to
                }
            };
        }
        let next = FieldId(self.paths.len() as u32);
        let field = *self.points[point].field.get_or_insert(next);
        if field == next {
            self.paths.push(path.to_vec());
        }
        field
    }

    /// The finished tree.
    pub fn build(mut self) -> PathTree {
        if self.points.is_empty() {
            self.points.push(Point::default());
        }
        PathTree { fields: self.paths.len() as u32, points: self.points }
    }
}

impl PathTree {
    /// How many fields the tree names; field ids are below it.
    pub fn fields(&self) -> usize {
        self.fields as usize
    }

    /// Where every document starts.
    pub fn root(&self) -> Branch {
        Branch(0)
    }

    /// Where the key of `len` bytes at `at` leads from `from`, if any path goes on there. The key has no escapes.
    /// Fastest when eight bytes can be read from `at` on.
    pub fn descend_at(&self, from: Branch, text: &[u8], at: usize, len: usize) -> Option<Branch> {
        let segment = Segment::read(text, at, len);
        if segment.has_dot() { self.descend(from, segment.bytes) } else { self.step(from, segment) }
    }

    /// Where `key`, decoded, leads from `from`, if any path goes on there.
    pub fn descend(&self, from: Branch, key: &[u8]) -> Option<Branch> {
        key.split(|&b| b == b'.').try_fold(from, |branch, segment| self.step(branch, Segment::new(segment)))
    }

    fn step(&self, from: Branch, segment: Segment<'_>) -> Option<Branch> {
        search(&self.points[from.0 as usize].children, segment).map(Branch)
    }

    /// The field whose path ends here, if one does.
    pub fn field(&self, at: Branch) -> Option<FieldId> {
        self.points[at.0 as usize].field
    }
}
