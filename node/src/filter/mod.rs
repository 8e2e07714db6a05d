//! Record filters: expressions of the Common Expression Language (CEL) that a reader sends with its fetch.
//! The node checks an expression when it arrives, and evaluates it on each record before it sends the record.
//!
//! An expression is untrusted code, so its abilities are limited: no loops, no variables, no lists except
//! lists of literals. Its cost on a record is at most its length times the size of the record. No result
//! depends on timing, except the number of records evaluated for one response.
//!
//! This module must never depend on partitions, on reader positions or on the identity of the caller.

mod batch;
mod check;
mod matches;
mod record;
#[cfg(test)]
mod tests;
mod value;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};

use cel::common::ast::IdedExpr;
use cel::common::types::CelBool;
use cel::parser::{ParseError, PrattParser};
use cel::{Context, Env, Value};
use ropewalk_proto::batch::Record;
use ropewalk_proto::error::{ErrorCode, WireError};

pub use batch::{Budget, Origin, Outcome, unreadable};

use check::Tokens;
use matches::Patterns;
use record::Variables;

/// Maximum length of an expression.
const EXPRESSION_BYTES: usize = 4 << 10;
/// Maximum number of tokens in an expression: names, numbers, operators, brackets.
const TOKENS: usize = 512;
/// Maximum depth of nesting, and of chains of operators other than `&&` and `||`. Each level takes a few
/// KiB of stack.
const DEPTH: u16 = 20;
/// Maximum cost of one record: its size in bytes times the number of tokens of the expression.
const COST: usize = 128 << 20;

/// CEL's standard library, shared by all expressions.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// Filter expression that has passed all checks.
pub struct Filter {
    source: String,
    expression: IdedExpr,
    tokens: usize,
    patterns: Arc<Patterns>,
    environment: Arc<Env>,
}

/// Reason that a record cannot be evaluated. Such a record is neither sent nor skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TooCostly {
    /// The record is too large for the length of the expression.
    Work,
    /// The value of the record is too large to be parsed as JSON.
    Json,
    /// The text is too long to be searched for a pattern.
    Pattern,
    /// The evaluation panicked.
    Fault,
}

impl Filter {
    /// Parses and checks an expression.
    ///
    /// # Errors
    /// `InvalidFilter`, with the line and the column of the mistake. Both count from 1, columns in
    /// characters.
    pub fn compile(source: &str) -> Result<Filter, WireError> {
        if source.len() > EXPRESSION_BYTES {
            return Err(invalid(format!(
                "filter of {} bytes is too long; the limit is {EXPRESSION_BYTES}",
                source.len()
            )));
        }
        let read = catch_unwind(|| read(source));
        read.unwrap_or_else(|_| Err(invalid("filter cannot be parsed; rewrite it")))
    }

    /// Source text of the expression.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// True if a record matches. A record does not match if the expression fails, or returns any other value.
    fn wants(&self, origin: &Origin<'_>, offset: u64, record: &Record) -> Result<bool, TooCostly> {
        let variables = Variables::new(origin, offset, record);
        if variables.bytes().saturating_mul(self.tokens) > COST {
            return Err(TooCostly::Work);
        }
        let evaluated = catch_unwind(AssertUnwindSafe(|| self.evaluate(&variables)));
        evaluated.unwrap_or(Err(TooCostly::Fault))
    }

    fn evaluate(&self, variables: &Variables<'_>) -> Result<bool, TooCostly> {
        let mut context = Context::with_env(self.environment.clone());
        context.set_variable_resolver(variables);
        let long = self.patterns.bind(&mut context);
        match Value::resolve_val(&self.expression, &context) {
            Ok(value) => Ok(value
                .downcast_ref::<CelBool>()
                .is_some_and(|it| *it.inner())),
            Err(_) if long.get() => Err(TooCostly::Pattern),
            Err(_) if variables.json_is_too_long() => Err(TooCostly::Json),
            Err(_) => Ok(false),
        }
    }
}

fn read(source: &str) -> Result<Filter, WireError> {
    // Names and length are checked first, so that the parser sees only input that is allowed and short.
    let tokens = Tokens::of(source)?;
    tokens.check()?;
    let parser = PrattParser::new().max_recursion_depth(DEPTH);
    let expression = parser.parse(source).map_err(|errors| {
        let first = errors.errors.iter().min_by_key(|error| error.pos);
        first.map_or_else(
            || invalid("filter is not an expression"),
            |it| misread(source, it),
        )
    })?;
    let patterns = tokens.patterns(&expression)?;
    Ok(Filter {
        source: source.to_owned(),
        expression,
        tokens: tokens.len(),
        patterns: Arc::new(patterns),
        environment: ENVIRONMENT.clone(),
    })
}

fn misread(source: &str, error: &ParseError) -> WireError {
    let (line, column) = error.pos;
    let (line, column) = (
        usize::try_from(line).unwrap_or(0),
        usize::try_from(column).unwrap_or(0),
    );
    if line == 0 || column == 0 {
        return invalid(format!("filter cannot be parsed: {}", error.msg));
    }
    // The parser counts columns in bytes.
    let text = source.split('\n').nth(line - 1).unwrap_or_default();
    let before = text.char_indices().take_while(|(at, _)| at + 1 < column);
    at(line, before.count() + 1, &error.msg)
}

/// Error for a mistake at a position in the expression.
fn at(line: usize, column: usize, what: &str) -> WireError {
    invalid(format!("filter, line {line}, column {column}: {what}"))
}

fn invalid(what: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::InvalidFilter, what)
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Filter").field(&self.source).finish()
    }
}
