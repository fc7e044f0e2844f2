//! The template language: the part of minijinja that is allowed. An untrusted author writes templates, and they run in a
//! process that serves other customers. Syntax that multiplies a value in one step, or repeats steps, is refused when the
//! template is read, before anything is evaluated.
//!
//! Every kind of statement and expression of minijinja is matched here, so that a new one is a compile error.

use std::collections::BTreeSet;

use minijinja::machinery::ast::{BinOpKind, CallArg, CompareOpKind, Expr, Stmt, UnaryOpKind};
use minijinja::machinery::{Token, parse, parse_expr, tokenize};
use minijinja::syntax::SyntaxConfig;

use super::filters;

/// The longest template, in bytes.
pub const TEMPLATE_MAX_BYTES: usize = 32 * 1024;
/// The most tokens in the code of one template. It also limits the nesting.
const TOKENS_MAX: usize = 500;
/// The most operators in one template that copy or compare whole values.
const COPYING_OPERATORS_MAX: usize = 20;

/// The path of a value in the context: a variable, and attributes below it.
pub(super) type Path = Vec<String>;

/// The facts about a template that limits need, collected when it is read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// The variables that it refers to.
    pub names: BTreeSet<String>,
    /// The values that its operators copy or compare, once for each operator.
    pub copied: Vec<Path>,
}

/// Reads a bare expression.
pub(super) fn read_expression(source: &str) -> Result<Shape, String> {
    ensure_short(source, true)?;
    let mut reader = Reader::default();
    reader.expression(&parse_expr(source).map_err(|error| error.to_string())?)?;
    Ok(reader.shape)
}

/// Reads a text with code in it.
pub(super) fn read_text(source: &str) -> Result<Shape, String> {
    let mut reader = Reader::default();
    reader.statement(&parse_text(source)?)?;
    Ok(reader.shape)
}

/// The parts of a text that do not depend on values.
pub(super) fn literal(source: &str) -> String {
    let mut literal = String::new();
    if let Ok(statement) = parse_text(source) {
        collect_literals(&statement, &mut literal);
    }
    literal
}

fn parse_text(source: &str) -> Result<Stmt<'_>, String> {
    ensure_short(source, false)?;
    parse(source, "", SyntaxConfig::default()).map_err(|error| error.to_string())
}

/// Counts the tokens before parsing: a syntax tree that is too deep would overflow the stack even when it is dropped.
fn ensure_short(source: &str, expression: bool) -> Result<(), String> {
    if source.len() > TEMPLATE_MAX_BYTES {
        let length = source.len();
        return Err(format!("it has {length} bytes, more than the {TEMPLATE_MAX_BYTES} allowed; shorten it"));
    }
    let tokens = tokenize(source, expression, SyntaxConfig::default()).map_while(Result::ok);
    let code = tokens.filter(|(token, _)| !matches!(token, Token::TemplateData(_)));
    if code.take(TOKENS_MAX + 1).count() > TOKENS_MAX {
        return Err(format!(
            "its code has more than {TOKENS_MAX} words and signs; shorten it, or use several templates"
        ));
    }
    Ok(())
}

fn collect_literals(statement: &Stmt<'_>, literal: &mut String) {
    let inner: Vec<&Stmt<'_>> = match statement {
        Stmt::EmitRaw(raw) => {
            literal.push_str(raw.raw);
            Vec::new()
        }
        Stmt::Template(template) => template.children.iter().collect(),
        Stmt::IfCond(condition) => condition.true_body.iter().chain(&condition.false_body).collect(),
        Stmt::EmitExpr(_)
        | Stmt::ForLoop(_)
        | Stmt::WithBlock(_)
        | Stmt::Set(_)
        | Stmt::SetBlock(_)
        | Stmt::AutoEscape(_)
        | Stmt::FilterBlock(_)
        | Stmt::Do(_) => Vec::new(),
    };
    for statement in inner {
        collect_literals(statement, literal);
    }
}

#[derive(Default)]
struct Reader {
    shape: Shape,
    /// The values that were read so far.
    leaves: Vec<Path>,
    /// The number of operators that copy or compare whole values.
    copying_operators: usize,
}

impl Reader {
    fn statement(&mut self, statement: &Stmt<'_>) -> Result<(), String> {
        let refused = |tag: &str, remedy: &str| Err(format!("{tag} is not allowed; {remedy}"));
        let inline = "write the expression where its value is used";
        match statement {
            Stmt::Template(template) => template.children.iter().try_for_each(|child| self.statement(child)),
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::EmitExpr(emit) => self.expression(&emit.expr),
            Stmt::IfCond(condition) => {
                self.expression(&condition.expr)?;
                let mut bodies = condition.true_body.iter().chain(&condition.false_body);
                bodies.try_for_each(|child| self.statement(child))
            }
            Stmt::ForLoop(_) => refused("{% for %}", "use $for, or the filters map and join"),
            Stmt::Set(_) | Stmt::SetBlock(_) => refused("{% set %}", inline),
            Stmt::WithBlock(_) => refused("{% with %}", inline),
            Stmt::FilterBlock(_) => refused("{% filter %}", "write {{ value | filter }}"),
            Stmt::AutoEscape(_) => refused("{% autoescape %}", "nothing is escaped; remove it"),
            Stmt::Do(_) => refused("{% do %}", "remove it"),
        }
    }

    fn expression(&mut self, expression: &Expr<'_>) -> Result<(), String> {
        if let Some(path) = path_of(expression) {
            self.shape.names.extend(path.first().cloned());
            self.leaves.push(path);
            return Ok(());
        }
        let before = self.leaves.len();
        match expression {
            Expr::Var(_) | Expr::Const(_) => {}
            Expr::GetAttr(attribute) => self.expression(&attribute.expr)?,
            Expr::GetItem(item) => {
                self.expressions([&item.expr, &item.subscript_expr])?;
                // The subscript is compared with the keys of the value.
                if !is_scalar(&item.subscript_expr) {
                    self.count_copying_operator(before)?;
                }
            }
            Expr::Slice(slice) => {
                self.expression(&slice.expr)?;
                self.expressions([&slice.start, &slice.stop, &slice.step].into_iter().flatten())?;
                self.count_copying_operator(before)?;
            }
            Expr::UnaryOp(operation) => match operation.op {
                UnaryOpKind::Not | UnaryOpKind::Neg => self.expression(&operation.expr)?,
            },
            Expr::BinOp(operation) => {
                let (left, right) = (&operation.left, &operation.right);
                self.expressions([left, right])?;
                match operation.op {
                    BinOpKind::ScAnd
                    | BinOpKind::ScOr
                    | BinOpKind::Sub
                    | BinOpKind::Div
                    | BinOpKind::FloorDiv
                    | BinOpKind::Rem => {}
                    BinOpKind::Mul | BinOpKind::Pow if is_number(left) && is_number(right) => {}
                    BinOpKind::Mul | BinOpKind::Pow => {
                        return Err("* and ** are for numbers only; write (value | int) or (value | float)".to_owned());
                    }
                    BinOpKind::Concat if !is_plain(left) || !is_plain(right) => {
                        return Err("~ joins texts, not lists and objects; use join, string or tojson".to_owned());
                    }
                    BinOpKind::Concat | BinOpKind::Add => self.count_copying_operator(before)?,
                    BinOpKind::Eq | BinOpKind::Ne | BinOpKind::Lt | BinOpKind::Lte | BinOpKind::Gt | BinOpKind::Gte => {
                        if !is_scalar(left) && !is_scalar(right) {
                            self.count_copying_operator(before)?;
                        }
                    }
                    BinOpKind::In => {
                        if !is_short_list(right) {
                            self.count_copying_operator(before)?;
                        }
                    }
                }
            }
            Expr::Compare(comparison) => {
                self.expression(&comparison.expr)?;
                let mut left = &comparison.expr;
                for operation in &comparison.ops {
                    let right = &operation.expr;
                    self.expression(right)?;
                    let light = match operation.op {
                        CompareOpKind::In | CompareOpKind::NotIn => is_short_list(right),
                        CompareOpKind::Eq
                        | CompareOpKind::Ne
                        | CompareOpKind::Lt
                        | CompareOpKind::Lte
                        | CompareOpKind::Gt
                        | CompareOpKind::Gte => is_scalar(left) || is_scalar(right),
                    };
                    if !light {
                        self.count_copying_operator(before)?;
                    }
                    left = right;
                }
            }
            Expr::IfExpr(choice) => {
                self.expressions([&choice.test_expr, &choice.true_expr].into_iter().chain(&choice.false_expr))?;
            }
            Expr::Filter(filter) => {
                if !filters::is_filter(filter.name) {
                    return Err(format!("uses the filter {}, which does not exist", filter.name));
                }
                self.expressions(&filter.expr)?;
                self.arguments(&filter.args)?;
            }
            Expr::Test(test) => {
                if !filters::is_test(test.name) {
                    return Err(format!("uses the test {}, which does not exist", test.name));
                }
                self.expression(&test.expr)?;
                self.arguments(&test.args)?;
            }
            Expr::Call(call) if is_function(&call.expr) => self.arguments(&call.args)?,
            Expr::Call(_) => return Err(format!("calls an unknown function; {} is the only one", filters::FUNCTION)),
            Expr::List(list) => self.expressions(&list.items)?,
            Expr::Tuple(tuple) => self.expressions(&tuple.items)?,
            Expr::Map(map) => self.expressions(map.keys.iter().chain(&map.values))?,
        }
        Ok(())
    }

    fn expressions<'a>(&mut self, all: impl IntoIterator<Item = &'a Expr<'a>>) -> Result<(), String> {
        all.into_iter().try_for_each(|one| self.expression(one))
    }

    fn arguments(&mut self, arguments: &[CallArg<'_>]) -> Result<(), String> {
        arguments.iter().try_for_each(|argument| match argument {
            CallArg::Pos(value) | CallArg::Kwarg(_, value) => self.expression(value),
            CallArg::PosSplat(_) | CallArg::KwargSplat(_) => {
                Err("* and ** before an argument are not allowed; write the arguments out".to_owned())
            }
        })
    }

    /// Records an operator that copies or compares all values read since `since`.
    fn count_copying_operator(&mut self, since: usize) -> Result<(), String> {
        self.copying_operators += 1;
        if self.copying_operators > COPYING_OPERATORS_MAX {
            return Err(format!(
                "it has more than {COPYING_OPERATORS_MAX} of ~, +, in, slices, [name] and comparisons of two values; use a text with \
                 {{{{ … }}}} in it, or several templates"
            ));
        }
        self.shape.copied.extend(self.leaves.iter().skip(since).cloned());
        Ok(())
    }
}

fn is_function(called: &Expr<'_>) -> bool {
    matches!(called, Expr::Var(name) if name.id == filters::FUNCTION)
}

/// The path of a variable with attributes.
fn path_of(expression: &Expr<'_>) -> Option<Path> {
    let mut names = Vec::new();
    let mut expression = expression;
    while let Expr::GetAttr(attribute) = expression {
        names.push(attribute.name.to_owned());
        expression = &attribute.expr;
    }
    let Expr::Var(name) = expression else { return None };
    names.push(name.id.to_owned());
    names.reverse();
    Some(names)
}

/// Whether it is a constant in the template other than a list or an object.
fn is_scalar(expression: &Expr<'_>) -> bool {
    matches!(expression, Expr::Const(constant) if constant.value.as_object().is_none())
}

/// Whether it is a list of such constants.
fn is_short_list(expression: &Expr<'_>) -> bool {
    let is_list = matches!(expression, Expr::List(list) if list.items.iter().all(is_scalar));
    is_list || matches!(expression, Expr::Tuple(tuple) if tuple.items.iter().all(is_scalar))
}

/// Whether it is certainly a number.
fn is_number(expression: &Expr<'_>) -> bool {
    if let Expr::BinOp(operation) = expression {
        // -, * and / return numbers or fail; + does so for numbers only.
        return matches!(operation.op, BinOpKind::Sub | BinOpKind::Mul | BinOpKind::Div)
            || matches!(operation.op, BinOpKind::Add) && is_number(&operation.left) && is_number(&operation.right);
    }
    matches!(expression, Expr::Const(constant) if constant.value.is_number())
        || matches!(expression, Expr::Filter(filter) if filters::NUMBERS.contains(&filter.name))
        || matches!(expression, Expr::UnaryOp(one) if matches!(one.op, UnaryOpKind::Neg) && is_number(&one.expr))
}

/// Whether it is certainly not a list or an object that the template made. Writing one as text escapes the texts in it, which
/// grows them with each repetition.
fn is_plain(expression: &Expr<'_>) -> bool {
    match expression {
        Expr::Var(_) | Expr::Const(_) | Expr::UnaryOp(_) | Expr::Compare(_) | Expr::Test(_) => true,
        Expr::GetAttr(attribute) => is_plain(&attribute.expr),
        Expr::GetItem(item) => is_plain(&item.expr),
        Expr::Slice(slice) => is_plain(&slice.expr),
        Expr::BinOp(operation) => is_plain(&operation.left) && is_plain(&operation.right),
        Expr::IfExpr(choice) => is_plain(&choice.true_expr) && choice.false_expr.as_ref().is_none_or(is_plain),
        Expr::Filter(filter) => {
            let argument = |argument: &CallArg<'_>| match argument {
                CallArg::Pos(value) | CallArg::Kwarg(_, value) => is_plain(value),
                CallArg::PosSplat(_) | CallArg::KwargSplat(_) => false,
            };
            filters::TEXTS.contains(&filter.name)
                || filters::NUMBERS.contains(&filter.name)
                || filters::ONE_OF.contains(&filter.name)
                    && filter.expr.as_ref().is_some_and(is_plain)
                    && filter.args.iter().all(argument)
        }
        Expr::Call(_) | Expr::List(_) | Expr::Tuple(_) | Expr::Map(_) => false,
    }
}
