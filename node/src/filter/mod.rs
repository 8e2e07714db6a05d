//! Which records a reader wants: an expression of the Common Expression Language (CEL), looked at when
//! it comes and evaluated on each record before it is sent.
//!
//! An expression is a stranger's program, so it can do little: no loops, no variables of its own, lists
//! of literals only. What is left costs at most its length times the record's. Nothing in here depends
//! on how long anything takes, but for how many records are looked at for one answer.
//!
//! What must never come in: partitions, positions, who asks.

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

/// The longest expression.
const EXPRESSION_BYTES: usize = 4 << 10;
/// The most tokens of one: names, numbers, operators, brackets.
const TOKENS: usize = 512;
/// How deep it may be nested, or chained with operators other than `&&` and `||`. Each level takes some
/// KiB of the stack.
const DEPTH: u16 = 20;
/// What one record may cost: its bytes, times the tokens of the expression.
const COST: usize = 128 << 20;

/// What all expressions have in common: operators, conversions, texts.
static ENVIRONMENT: LazyLock<Arc<Env>> = LazyLock::new(|| Arc::new(Env::stdlib()));

/// An expression that was found good.
pub struct Filter {
    source: String,
    expression: IdedExpr,
    tokens: usize,
    patterns: Arc<Patterns>,
    environment: Arc<Env>,
}

/// Why a record can't be judged. It is neither sent nor passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TooCostly {
    /// The record is too large for the length of the expression.
    Work,
    /// Its value is too large to be read as JSON.
    Json,
    /// The text to search is too long for a pattern.
    Pattern,
    /// The evaluation met a fault of its own.
    Fault,
}

impl Filter {
    /// Reads an expression.
    ///
    /// # Errors
    /// `InvalidFilter`, with the line and the column of what is wrong, each counted from 1 and in
    /// characters.
    pub fn compile(source: &str) -> Result<Filter, WireError> {
        if source.len() > EXPRESSION_BYTES {
            return Err(invalid(format!(
                "the filter has {} bytes; at most {EXPRESSION_BYTES} are taken",
                source.len()
            )));
        }
        let read = catch_unwind(|| read(source));
        read.unwrap_or_else(|_| Err(invalid("the filter can't be read; write it otherwise")))
    }

    /// The text it was made from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Whether a record is wanted. One on which the expression fails, or gives anything but true, is not.
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
    // The names first: the parser sees only what can be used, and not too much of it.
    let tokens = Tokens::of(source)?;
    tokens.check()?;
    let parser = PrattParser::new().max_recursion_depth(DEPTH);
    let expression = parser.parse(source).map_err(|errors| {
        let first = errors.errors.iter().min_by_key(|error| error.pos);
        first.map_or_else(|| invalid("it is no expression"), |it| misread(source, it))
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
        return invalid(format!("the filter can't be read: {}", error.msg));
    }
    // The parser counts columns in bytes.
    let text = source.split('\n').nth(line - 1).unwrap_or_default();
    let before = text.char_indices().take_while(|(at, _)| at + 1 < column);
    at(line, before.count() + 1, &error.msg)
}

/// What is wrong, and where.
fn at(line: usize, column: usize, what: &str) -> WireError {
    invalid(format!("the filter, line {line}, column {column}: {what}"))
}

fn invalid(what: impl Into<String>) -> WireError {
    WireError::new(ErrorCode::InvalidFilter, what)
}

impl std::fmt::Debug for Filter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Filter").field(&self.source).finish()
    }
}
