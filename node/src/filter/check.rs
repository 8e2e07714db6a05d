//! Checks that an expression uses only what filters allow. Most checks work on the tokens, because tokens
//! carry their position in the source. The syntax tree is checked for its depth and its patterns.

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue};
use cel::parser::pratt_parser::{Lexer, Token, TokenKind};
use ropewalk_proto::error::WireError;

use super::matches::Patterns;
use super::{DEPTH, TOKENS, at, record};

/// Allowed functions. `METHODS` lists the functions that are called on a value.
const FUNCTIONS: &[&str] = &[
    "bool", "bytes", "double", "dyn", "has", "int", "matches", "size", "string", "type", "uint",
];
const METHODS: &[&str] = &["contains", "endsWith", "matches", "size", "startsWith"];
/// Names of the types that `type()` returns.
const TYPES: &[&str] = &[
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "uint",
];
/// Maximum number of `+` operators in an expression. Each one copies the strings or bytes that it joins.
const ADDITIONS: usize = 8;

/// Tokens of an expression, without whitespace and comments.
pub(super) struct Tokens<'a> {
    source: &'a str,
    all: Vec<Token>,
}

impl<'a> Tokens<'a> {
    /// Splits an expression into tokens.
    pub fn of(source: &'a str) -> Result<Tokens<'a>, WireError> {
        let mut lexer = Lexer::new(source);
        let mut tokens = Tokens {
            source,
            all: Vec::new(),
        };
        loop {
            let token = lexer.lex();
            match token.kind {
                TokenKind::TokEnd => return Ok(tokens),
                TokenKind::TokWhitespace | TokenKind::TokComment => {}
                TokenKind::TokError => {
                    let what = lexer.get_error().map_or("unknown token", |it| &it.message);
                    return Err(tokens.refuse(&token, what));
                }
                _ if tokens.all.len() == TOKENS => {
                    let what = format!("more than {TOKENS} names and operators; shorten it");
                    return Err(tokens.refuse(&token, &what));
                }
                _ => tokens.all.push(token),
            }
        }
    }

    /// Checks the syntax tree that the parser built, and compiles the patterns in it.
    pub fn patterns(&self, expression: &IdedExpr) -> Result<Patterns, WireError> {
        let mut walk = Walk {
            tokens: self,
            patterns: Patterns::default(),
            patterns_seen: 0,
        };
        walk.visit(expression, 0)?;
        Ok(walk.patterns)
    }

    fn text(&self, token: &Token) -> &'a str {
        self.source.get(token.start..token.end).unwrap_or_default()
    }

    fn refuse(&self, token: &Token, what: &str) -> WireError {
        let before = self.source.get(..token.start).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let start = before.rfind('\n').map_or(0, |end| end + 1);
        let column = before[start..].chars().count() + 1;
        at(line, column, what)
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.all.len()
    }

    /// Checks each token in its context.
    pub fn check(&self) -> Result<(), WireError> {
        let (mut additions, mut in_list) = (0, false);
        for (place, token) in self.all.iter().enumerate() {
            let after_value = place
                .checked_sub(1)
                .is_some_and(|before| self.ends_value(before));
            match token.kind {
                TokenKind::TokLeftBrace => {
                    return Err(self.refuse(token, "maps and messages are not supported"));
                }
                TokenKind::TokLeftBracket if !after_value && !self.is_compared(place) => {
                    let what = "a list may only follow in, == or !=";
                    return Err(self.refuse(token, what));
                }
                TokenKind::TokLeftBracket if !after_value => in_list = true,
                TokenKind::TokRightBracket if in_list => in_list = false,
                kind if in_list && !is_of_literals(kind) => {
                    let what = "a list may only contain literals: numbers, strings, true, false, \
                        null";
                    return Err(self.refuse(token, what));
                }
                TokenKind::TokPlus => {
                    additions += 1;
                    if additions > ADDITIONS {
                        let what = format!(
                            "more than {ADDITIONS} additions; use \
                            fewer"
                        );
                        return Err(self.refuse(token, &what));
                    }
                }
                TokenKind::TokIdent => self.check_name(place, token)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn check_name(&self, place: usize, token: &Token) -> Result<(), WireError> {
        let name = self.text(token);
        let kind_at = |place: Option<usize>| Some(self.all.get(place?)?.kind);
        let called = kind_at(place.checked_add(1)) == Some(TokenKind::TokLeftParen);
        let member = kind_at(place.checked_sub(1)) == Some(TokenKind::TokDot)
            && place
                .checked_sub(2)
                .is_some_and(|before| self.ends_value(before));
        let what = match (member, called) {
            (true, false) => return Ok(()),
            (true, true) if METHODS.contains(&name) => return Ok(()),
            (false, true) if FUNCTIONS.contains(&name) => return Ok(()),
            (false, false) if record::NAMES.contains(&name) || TYPES.contains(&name) => {
                return Ok(());
            }
            (true, true) => format!(
                "method {name} does not exist; the methods are {}",
                list(METHODS)
            ),
            (false, true) => format!(
                "function {name} does not exist; the functions are {}",
                list(FUNCTIONS)
            ),
            (false, false) => format!(
                "name {name} does not exist; a record has {}",
                list(record::NAMES)
            ),
        };
        Err(self.refuse(token, &what))
    }

    /// True if the token before this index is `in`, `==` or `!=`.
    fn is_compared(&self, place: usize) -> bool {
        use TokenKind as Kind;
        let before = place.checked_sub(1).and_then(|before| self.all.get(before));
        before.is_some_and(|token| {
            matches!(
                token.kind,
                Kind::TokIn | Kind::TokEqualEqual | Kind::TokExclamationEqual
            )
        })
    }

    /// True if an index or a member access can follow the token at this index.
    fn ends_value(&self, place: usize) -> bool {
        use TokenKind as Kind;
        self.all.get(place).is_some_and(|token| {
            matches!(
                token.kind,
                Kind::TokIdent
                    | Kind::TokRightBracket
                    | Kind::TokRightParen
                    | Kind::TokString
                    | Kind::TokBytes
                    | Kind::TokInt
                    | Kind::TokUint
                    | Kind::TokFloat
                    | Kind::TokTrue
                    | Kind::TokFalse
                    | Kind::TokNull
            )
        })
    }

    /// Token of the n-th call of `matches`, used as the position of errors about its pattern.
    fn pattern(&self, number: usize) -> Option<&Token> {
        let called = |pair: &&[Token]| {
            self.text(&pair[0]) == "matches" && pair[1].kind == TokenKind::TokLeftParen
        };
        let call = self.all.windows(2).filter(called).nth(number)?;
        Some(&call[0])
    }
}

fn is_of_literals(kind: TokenKind) -> bool {
    use TokenKind as Kind;
    matches!(
        kind,
        Kind::TokInt
            | Kind::TokUint
            | Kind::TokFloat
            | Kind::TokString
            | Kind::TokBytes
            | Kind::TokTrue
            | Kind::TokFalse
            | Kind::TokNull
            | Kind::TokMinus
            | Kind::TokComma
    )
}

fn list(names: &[&str]) -> String {
    names.join(", ")
}

/// Visits the syntax tree in source order, so that the n-th `matches` here is the n-th among the tokens.
struct Walk<'a> {
    tokens: &'a Tokens<'a>,
    patterns: Patterns,
    patterns_seen: usize,
}

impl Walk<'_> {
    fn visit(&mut self, expression: &IdedExpr, depth: u16) -> Result<(), WireError> {
        if depth > DEPTH {
            return Err(at(
                1,
                1,
                &format!("nested, or chained, deeper than {DEPTH}"),
            ));
        }
        let deeper = depth + 1;
        match &expression.expr {
            Expr::Call(call) => {
                if let Some(target) = &call.target {
                    self.visit(target, deeper)?;
                }
                if call.func_name == "matches" {
                    self.pattern(call)?;
                }
                call.args.iter().try_for_each(|it| self.visit(it, deeper))
            }
            Expr::Select(select) => self.visit(&select.operand, deeper),
            Expr::List(list) => list
                .elements
                .iter()
                .try_for_each(|it| self.visit(it, deeper)),
            Expr::Ident(_) | Expr::Literal(_) => Ok(()),
            // The token checks allow no other kinds. A later parser may add kinds.
            _ => Err(at(1, 1, "unsupported expression")),
        }
    }

    fn pattern(&mut self, call: &CallExpr) -> Result<(), WireError> {
        let token = self.tokens.pattern(self.patterns_seen);
        self.patterns_seen += 1;
        let literal = call.args.last().map(|it| &it.expr);
        let added = match literal {
            Some(Expr::Literal(LiteralValue::String(pattern))) => {
                self.patterns.add(pattern.inner())
            }
            _ => Err("the pattern of matches() must be a literal string".to_owned()),
        };
        added.map_err(|what| match token {
            Some(token) => self.tokens.refuse(token, &what),
            None => at(1, 1, &what),
        })
    }
}
