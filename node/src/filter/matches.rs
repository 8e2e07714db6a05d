//! Regular expressions of a filter: compiled once, with a search time that is linear in the text.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cel::common::types::CelString;
use cel::{Context, ExecutionError, FunctionContext, Value};
use regex::{Regex, RegexBuilder};

/// Maximum number of distinct patterns in one expression.
const PATTERNS: usize = 8;
/// Maximum size of a compiled pattern. This also limits the number of states that a search follows.
const PATTERN_BYTES: usize = 128 << 10;
/// Maximum length of a text that is searched.
const TEXT_BYTES: usize = 16 << 10;

/// Compiled patterns of one expression, by their source.
#[derive(Debug, Default)]
pub(super) struct Patterns(BTreeMap<String, Regex>);

/// Flag that is set if a text was too long to be searched.
#[derive(Debug, Clone, Default)]
pub(super) struct TooLong(Arc<AtomicBool>);

impl TooLong {
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Patterns {
    /// Compiles and adds a pattern. The error describes the fault of the pattern.
    pub fn add(&mut self, pattern: &str) -> Result<(), String> {
        if self.0.contains_key(pattern) {
            return Ok(());
        }
        if self.0.len() == PATTERNS {
            return Err(format!("more than {PATTERNS} patterns; join some with |"));
        }
        let compiled = RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES)
            .dfa_size_limit(PATTERN_BYTES)
            .build();
        let compiled = compiled.map_err(|error| {
            let told = error.to_string();
            let last = told.lines().last().unwrap_or_default();
            format!(
                "the pattern is invalid: {}",
                last.trim_start_matches("error: ")
            )
        })?;
        self.0.insert(pattern.to_owned(), compiled);
        Ok(())
    }

    /// Registers `matches` in an evaluation context. The returned flag is set if a text is too long.
    pub fn bind(self: &Arc<Patterns>, context: &mut Context<'_, '_>) -> TooLong {
        let long = TooLong::default();
        if !self.0.is_empty() {
            let (patterns, long) = (self.clone(), long.clone());
            let matches = move |call: &FunctionContext<'_, '_>| patterns.search(call, &long);
            // Cannot fail: the library's own `matches` is not compiled in. If it were, it would do as well.
            let _ = context.add_function("matches", matches);
        }
        long
    }

    /// Evaluates `text.matches(pattern)` and `matches(text, pattern)`.
    fn search(
        &self,
        call: &FunctionContext<'_, '_>,
        long: &TooLong,
    ) -> Result<Value, ExecutionError> {
        let mut given = call.this.iter().chain(&call.args);
        let (text, pattern) = (given.next(), given.next());
        let text = text.and_then(|it| it.downcast_ref::<CelString<'_>>());
        let pattern = pattern.and_then(|it| it.downcast_ref::<CelString<'_>>());
        let (Some(text), Some(pattern), None) = (text, pattern, given.next()) else {
            return Err(call.error("matches() needs a text and a pattern"));
        };
        if text.inner().len() > TEXT_BYTES {
            long.0.store(true, Ordering::Relaxed);
            return Err(call.error("the text of matches() is too long"));
        }
        let pattern = self.0.get(pattern.inner());
        let pattern = pattern.ok_or_else(|| call.error("the pattern of matches() is unknown"))?;
        Ok(Value::Bool(pattern.is_match(text.inner())))
    }
}
