// What a query in LogQL says, by the published grammar: see tests/otlp/logql, which runs this.
//
// A query of entries: {"select": FILTERS}. One of numbers: {"select": FILTERS, "range": "1h", "by": [NAMES]}, how many
// entries of so long there are by these labels, or with "most": N the N largest of those numbers. A filter is
// [NAME, OPERATOR, VALUE] of a label or of metadata, with "" as the name of the line.
import { createRequire } from "node:module";
import { createInterface } from "node:readline";

const { parser } = createRequire(`${process.argv[2]}/`)("@grafana/lezer-logql");

// Nodes that only hold others, or that their parent reads; all that is not here and not read below is an error, so that
// nothing of a query goes unread.
const PASSED = new Set(
  `LogQL Expr LogExpr MetricExpr Selector Matchers PipelineExpr PipelineStage Pipe LabelFilter LineFilters VectorOp
  RangeOp LogRangeExpr Range Labels Grouping By`.split(/\s+/),
);

function read(query) {
  const said = { select: [], by: [] };
  const operators = [];
  const text = (node) => query.slice(node.from, node.to);
  const parts = (node) => {
    const all = [];
    for (let child = node.firstChild; child; child = child.nextSibling) all.push(text(child));
    return all;
  };
  const visit = (node) => {
    switch (node.name) {
      case "Matcher": {
        const [name, operator, value] = parts(node);
        said.select.push([name, operator, JSON.parse(value)]);
        return;
      }
      case "LineFilter": {
        const [operator, value] = parts(node);
        said.select.push(["", operator, JSON.parse(value)]);
        return;
      }
      case "VectorAggregationExpr":
      case "RangeAggregationExpr":
        operators.push(text(node.firstChild));
        break;
      case "Sum":
      case "Topk":
      case "CountOverTime":
        return;
      case "Number":
        said.most = Number(text(node));
        return;
      case "Duration":
        said.range = text(node);
        return;
      case "Identifier":
        said.by.push(text(node));
        return;
      default:
        if (!PASSED.has(node.name)) throw new Error(`column ${node.from + 1}: ${node.name} is not read here`);
    }
    for (let child = node.firstChild; child; child = child.nextSibling) visit(child);
  };
  // Errors first: beside one the rest makes little sense.
  parser.parse(query).iterate({
    enter: (node) => {
      if (node.type.isError) throw new Error(`column ${node.from + 1}: not LogQL`);
    },
  });
  visit(parser.parse(query).topNode);
  const shape = operators.join(" ");
  if (!["", "sum count_over_time", "topk sum count_over_time"].includes(shape)) {
    throw new Error(`"${shape}" is not read here`);
  }
  if (shape === "") delete said.by;
  return said;
}

for await (const query of createInterface({ input: process.stdin })) {
  try {
    console.log(JSON.stringify(read(query)));
  } catch (error) {
    console.error(`${error.message}: ${query}`);
    process.exitCode = 1;
  }
}
