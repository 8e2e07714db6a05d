//! Regular expressions, compiled once, and searched for in a time that grows with the text only.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cel::common::types::CelString;
use cel::{Context, ExecutionError, FunctionContext, Value};
use regex::{Regex, RegexBuilder};

/// Patterns of one expression.
const PATTERNS: usize = 8;
/// What a compiled pattern may take, and with it how many states a search may have to follow.
const PATTERN_BYTES: usize = 128 << 10;
/// The longest text that is searched.
const TEXT_BYTES: usize = 16 << 10;

/// The patterns of one expression, by their text.
#[derive(Debug, Default)]
pub(super) struct Patterns(BTreeMap<String, Regex>);

/// Whether a text was too long to be searched.
#[derive(Debug, Clone, Default)]
pub(super) struct TooLong(Arc<AtomicBool>);

impl TooLong {
    pub fn get(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl Patterns {
    /// Adds one; says what is wrong with it.
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
                "the pattern can't be used: {}",
                last.trim_start_matches("error: ")
            )
        })?;
        self.0.insert(pattern.to_owned(), compiled);
        Ok(())
    }

    /// Makes `matches` search for these.
    pub fn bind(self: &Arc<Patterns>, context: &mut Context<'_, '_>) -> TooLong {
        let long = TooLong::default();
        if !self.0.is_empty() {
            let (patterns, long) = (self.clone(), long.clone());
            let matches = move |call: &FunctionContext<'_, '_>| patterns.search(call, &long);
            // Never refused: the library's own is not compiled in. If it were, it would serve.
            let _ = context.add_function("matches", matches);
        }
        long
    }

    /// `text.matches(pattern)`, or `matches(text, pattern)`.
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
            return Err(call.error("it takes a text and a pattern"));
        };
        if text.inner().len() > TEXT_BYTES {
            long.0.store(true, Ordering::Relaxed);
            return Err(call.error("the text is too long"));
        }
        let pattern = self.0.get(pattern.inner());
        let pattern = pattern.ok_or_else(|| call.error("the pattern is not known"))?;
        Ok(Value::Bool(pattern.is_match(text.inner())))
    }
}
