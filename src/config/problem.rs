//! What is wrong with a configuration, and where.

use std::fmt;
use std::path::PathBuf;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nothing of the configuration takes effect.
    Error,
    /// It takes effect and is hardly what was meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub level: Level,
    /// As in `E0213`.
    pub code: &'static str,
    /// What is wrong.
    pub message: String,
    /// Where, if it is in a file.
    pub at: Option<At>,
    /// What the service says to it.
    pub service: Option<String>,
    /// What to do.
    pub help: Option<String>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The file.
    pub file: PathBuf,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// How many characters are meant.
    pub width: usize,
    /// As in `rules.big-orders.pattern`.
    pub path: String,
    /// The line, or what is around the place in a long one.
    pub text: String,
    /// Where the place begins in `text`, in characters.
    pub indent: usize,
}

impl Problem {
    /// A problem without a place.
    pub fn plain(code: &'static str, message: impl Into<String>) -> Self {
        Self { level: Level::Error, code, message: message.into(), at: None, service: None, help: None }
    }

    /// With what to do about it.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    /// Without the line, which may hold a secret.
    pub fn hide(&mut self) {
        if let Some(at) = &mut self.at {
            at.text.clear();
        }
    }

    /// Sort key: file, line, column.
    pub fn place(&self) -> (Option<PathBuf>, usize, usize) {
        self.at.as_ref().map_or((None, 0, 0), |at| (Some(at.file.clone()), at.line, at.column))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Error => "error",
            Level::Warning => "warning",
        };
        write!(f, "{level}[{}]: {}", self.code, self.message)?;
        if let Some(at) = &self.at {
            let margin = " ".repeat(at.line.to_string().len());
            write!(f, "\n{margin}--> {}:{}:{}", at.file.display(), at.line, at.column)?;
            if !at.path.is_empty() {
                write!(f, "   {}", at.path)?;
            }
            if !at.text.is_empty() {
                write!(f, "\n{margin} |\n{} | {}", at.line, at.text)?;
                write!(f, "\n{margin} | {}{}", " ".repeat(at.indent), "^".repeat(at.width.max(1)))?;
            }
        }
        if let Some(service) = &self.service {
            write!(f, "\n   = AWS says: {service}")?;
        }
        if let Some(help) = &self.help {
            write!(f, "\n   help: {help}")?;
        }
        Ok(())
    }
}

/// Everything that is wrong, in order of place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for problem in &self.0 {
            write!(f, "{problem}\n\n")?;
        }
        let plural = if self.0.len() == 1 { "" } else { "s" };
        write!(f, "{} problem{plural} found", self.0.len())
    }
}

impl std::error::Error for Problems {}
