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
    head: u64,
    segment: Box<[u8]>,
    to: u32,
}

#[derive(Default)]
struct Point {
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

/// The first eight bytes, so that most segments compare as one word.
fn head(segment: &[u8]) -> u64 {
    let mut word = [0; 8];
    let n = segment.len().min(8);
    word[..n].copy_from_slice(&segment[..n]);
    u64::from_be_bytes(word)
}

fn search(children: &[Child], segment: &[u8]) -> Result<usize, usize> {
    let key = head(segment);
    children.binary_search_by(|child| child.head.cmp(&key).then_with(|| child.segment.as_ref().cmp(segment)))
}

impl PathTreeBuilder {
    /// The field of a dotted path, made at its first mention.
    pub fn field(&mut self, path: &[u8]) -> FieldId {
        if self.points.is_empty() {
            self.points.push(Point::default());
        }
        let mut point = 0;
        for segment in path.split(|&b| b == b'.') {
            point = match search(&self.points[point].children, segment) {
                Ok(found) => self.points[point].children[found].to as usize,
                Err(slot) => {
                    let to = self.points.len();
                    let child = Child { head: head(segment), segment: segment.into(), to: to as u32 };
                    self.points[point].children.insert(slot, child);
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

    /// Where `key`, decoded, leads from `from`, if any path goes on there.
    pub fn descend(&self, from: Branch, key: &[u8]) -> Option<Branch> {
        if !key.contains(&b'.') {
            return self.step(from, key);
        }
        key.split(|&b| b == b'.').try_fold(from, |branch, segment| self.step(branch, segment))
    }

    fn step(&self, from: Branch, segment: &[u8]) -> Option<Branch> {
        let children = &self.points[from.0 as usize].children;
        search(children, segment).ok().map(|found| Branch(children[found].to))
    }

    /// The field whose path ends here, if one does.
    pub fn field(&self, at: Branch) -> Option<FieldId> {
        self.points[at.0 as usize].field
    }
}
