// What the page says, in English and Chinese.
import { forGood } from "./kept.js";

const KEY = "langue.language";

const WORDS = {
  again: ["Regenerate", "重新生成"],
  answer: ["Answer", "回答"],
  apiKey: ["API key", "API 密钥"],
  askedKey: ["This server requires an API key. It is kept until you close this tab.",
    "此服务器需要 API 密钥。密钥只保存到此标签页关闭为止。"],
  asTable: ["As a table ({n})", "以表格显示（{n}）"],
  beams: ["Beams", "束宽"],
  beamsHint: ["hypotheses kept at each step", "同时尝试的候选数"],
  broken: ["The answer was interrupted: the server or the connection is gone.", "回答中断：服务器或连接已断开。"],
  cancel: ["Cancel", "取消"],
  chat: ["Chat", "对话"],
  close: ["Close", "关闭"],
  complete: ["Complete", "续写"],
  context: ["Text", "文本"],
  contextLength: ["{n} tokens of context", "上下文 {n} 个词元"],
  continue: ["Continue", "续写"],
  copied: ["Copied.", "已复制。"],
  copy: ["Copy", "复制"],
  copyCode: ["Copy the code", "复制代码"],
  cut: ["Truncate texts that are too long", "截断过长的文本"],
  cutTexts: ["texts truncated: {n}", "{n} 段文本被截断"],
  dark: ["Dark", "深色"],
  default: ["default", "默认"],
  delete: ["Delete “{title}”", "删除“{title}”"],
  deleted: ["Deleted “{title}”.", "已删除“{title}”。"],
  edit: ["Edit", "编辑"],
  fault_context_length_exceeded: ["{said}", "文本超出模型的上下文长度。（{said}）"],
  fault_deadline_exceeded: ["{said}", "超出回答的时间限制。（{said}）"],
  fault_engine_error: ["{said}", "推理引擎出错。（{said}）"],
  fault_internal_error: ["{said}", "服务器内部错误。（{said}）"],
  fault_invalid_api_key: ["{said}", "API 密钥无效。（{said}）"],
  fault_invalid_value: ["{said}", "某个参数的值无效。（{said}）"],
  fault_model_not_found: ["{said}", "没有这个模型。（{said}）"],
  fault_model_not_loaded: ["{said}", "模型未能加载。（{said}）"],
  fault_rate_limit_exceeded: ["{said}", "请求过多，请稍后再试。（{said}）"],
  fault_request_too_large: ["{said}", "内容过大。（{said}）"],
  fault_server_ending: ["{said}", "服务器正在关闭。（{said}）"],
  empty: ["Ask a question, or give the model a task.", "提一个问题，或交给模型一项任务。"],
  export: ["Export", "导出"],
  exported: ["{n} conversations exported, one per line.", "已导出 {n} 个对话，每行一个，以消息列表表示。"],
  firstToken: ["first token after {s} s", "首个词元 {s} 秒"],
  full: ["New content is not saved: the browser's storage is full or disabled.",
    "新内容未保存：浏览器存储已满或已关闭。"],
  history: ["Conversations", "对话记录"],
  interrupted: ["interrupted", "已中断"],
  isWriting: ["The model is writing…", "模型正在回答……"],
  keptHere: ["Conversations are stored only in this browser.", "对话只保存在此浏览器中。"],
  length: ["stopped at the token limit", "达到词元上限"],
  light: ["Light", "浅色"],
  max_tokens: ["Maximum length", "最大长度"],
  max_tokensHint: ["in tokens", "以词元计"],
  min_p: ["Min-p", "Min-p"],
  min_pHint: ["minimum probability, relative to the most likely token", "相对最高概率的下限"],
  model: ["Model", "模型"],
  new: ["New conversation", "新对话"],
  newer: ["Next version", "下一版本"],
  noAnswer: ["This text does not contain an answer.", "文中没有答案"],
  noModels: ["This server has no models.", "此服务器没有模型。"],
  nothingFound: ["Nothing was found in this text.", "文中未找到任何内容。"],
  older: ["Previous version", "上一版本"],
  oneALine: ["one per line", "每行一个"],
  oneToken: ["1 token", "1 个词元"],
  otherLanguage: ["中文", "English"],
  output: ["Result", "结果"],
  pair: ["Second text", "第二段文本"],
  pairOptional: ["if the model compares two texts", "仅当模型比较两段文本时"],
  probabilities: ["Probabilities", "概率"],
  prompt: ["Prompt", "待续写的文本"],
  query: ["Query", "查询"],
  question: ["Question", "问题"],
  repetition_penalty: ["Repetition penalty", "重复惩罚"],
  repetition_penaltyHint: ["above 1: less repetition", "大于 1：减少重复"],
  report: ["Report", "报告"],
  reset: ["Reset", "重置"],
  resultHint: ["The result appears here.", "结果显示在此处。"],
  retry: ["Try again", "重试"],
  run: ["Run", "运行"],
  running: ["The model is running… {s} s", "模型正在运行…… {s} 秒"],
  save: ["Save", "保存"],
  seconds: ["{s} s", "{s} 秒"],
  seed: ["Seed", "随机种子"],
  seedHint: ["the same seed gives the same text", "相同种子，相同文本"],
  send: ["Send", "发送"],
  settings: ["Settings", "设置"],
  shadeHint: ["The darker a token, the less likely it was. Point at it, or use the arrow keys, to see the alternatives.",
    "颜色越深，概率越低。指向词元或用方向键，可查看其他候选。"],
  skip: ["Skip to the content", "跳到正文"],
  source: ["Source", "原文"],
  sourceLanguage: ["From", "源语言"],
  stop: ["Stop", "停止"],
  stopped: ["stopped", "已停止"],
  stopTexts: ["Stop strings", "停止文本"],
  system: ["System prompt", "系统提示"],
  systemHint: ["instructions before the conversation", "对话开始前告知模型的内容"],
  takeOver: ["Use as the prompt", "以此继续"],
  targetLanguage: ["To", "目标语言"],
  temperature: ["Temperature", "温度"],
  temperatureHint: ["0: always the most likely token", "0：总取最可能的"],
  texts: ["Texts to search", "待检索文本"],
  theme: ["Theme: {name}", "配色：{name}"],
  themeAuto: ["system", "跟随系统"],
  thoughts: ["Reasoning", "思考过程"],
  tokens: ["{n} tokens", "{n} 个词元"],
  tokensPerSecond: ["{n} tokens/s", "{n} 词元/秒"],
  top_k: ["Top-k", "Top-k"],
  top_kHint: ["only the k most likely tokens", "只取最可能的若干个"],
  top_p: ["Top-p", "Top-p"],
  top_pHint: ["only the most likely tokens, up to this total probability", "只取累计概率之内的"],
  tryIt: ["Try", "试用"],
  undo: ["Undo", "撤销"],
  unreachable: ["The server does not answer. Is langue serve still running?",
    "服务器没有响应。langue serve 还在运行吗？"],
  untitled: ["Untitled", "未命名"],
  useIt: ["Use", "使用"],
  version: ["{n} of {all}", "{n}/{all}"],
  views: ["Views", "视图"],
  words: ["Type here…", "在此输入……"],
  you: ["You", "你"],
};

function preferred() {
  const first = forGood.read(KEY) ?? navigator.language;
  return first.toLowerCase().startsWith("zh") ? "zh" : "en";
}

export let language = preferred();
document.documentElement.lang = language;

/** Use the other language from now on. */
export function switchLanguage() {
  language = language === "en" ? "zh" : "en";
  forGood.keep(KEY, language);
  document.documentElement.lang = language;
}

/** A saying in the language of the page; `{name}` is replaced by a value. */
export function t(name, values = {}) {
  const said = WORDS[name][language === "en" ? 0 : 1];
  return said.replace(/\{(\w+)\}/g, (_, key) => values[key]);
}

/** An error of the server in the language of the page, where its code is known, and as it came. */
export function told(error) {
  const name = `fault_${error?.code}`;
  return name in WORDS ? t(name, { said: error.message }) : error?.message;
}

/** So many tokens. */
export const tokens = (n) => t(n === 1 ? "oneToken" : "tokens", { n: number(n) });

/** A text from elsewhere within a saying: whatever direction it is written in, it turns nothing else round. */
export const isolated = (text) => `\u2068${text}\u2069`;

/** A probability as the language writes it. */
export const percent = (value) => `${number(100 * value, 1)}%`;

/** A number as the language writes it. */
export function number(value, digits = 0) {
  const format = { minimumFractionDigits: digits, maximumFractionDigits: digits };
  return value.toLocaleString(language === "en" ? "en" : "zh-CN", format);
}
