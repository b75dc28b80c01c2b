package tui

import (
	"fmt"
	"slices"
	"strings"
)

// languages are the catalogue's, in the order of its columns.
var languages = []string{"en", "zh"}

// catalog translates keys. A key that is missing shows as itself, which a test keeps from happening.
type catalog struct{ column int }

func newCatalog(language string) catalog {
	return catalog{max(0, slices.Index(languages, language))}
}

// pickLanguage follows the explicit choice, then the setting, then the locale.
func pickLanguage(explicit, setting string, environ []string) string {
	for _, l := range []string{explicit, setting} {
		if slices.Contains(languages, l) {
			return l
		}
	}
	for _, name := range []string{"LC_ALL", "LC_MESSAGES", "LANG"} {
		if v := lookup(environ, name); v != "" {
			if strings.HasPrefix(v, "zh") {
				return "zh"
			}
			return "en"
		}
	}
	return "en"
}

func (c catalog) text(key string, args ...any) string {
	s := key
	if row, ok := phrases[key]; ok {
		s = row[c.column]
	}
	if len(args) > 0 {
		return fmt.Sprintf(s, args...)
	}
	return s
}

// phrases holds every text of the UI. Arguments come in the same order in every language.
var phrases = map[string][2]string{
	"conversations":   {"conversations", "会话"},
	"members":         {"members", "成员"},
	"requests":        {"requests", "请求"},
	"no conversation": {"no conversation: type /join #lobby", "没有会话：输入 /join #lobby"},
	"loading":         {"loading…", "正在加载…"},
	"beginning":       {"the beginning of what is here", "此处为本机记录的开头"},
	"new messages":    {"new", "新消息"},
	"more below":      {"-- %d more below, End to go there --", "-- 下方还有 %d 条，按 End 跳转 --"},
	"deleted":         {"(deleted)", "（已删除）"},
	"edited":          {"(edited)", "（已编辑）"},
	"unknown kind":    {"(needs a newer version of starling)", "（需要更新版本的 starling）"},
	"joined":          {"joined", "加入"},
	"left":            {"left", "离开"},
	"is now":          {"%s is now known as %s", "%s 现在叫 %s"},
	"set topic":       {"%s set the topic: %s", "%s 设置了主题：%s"},
	"and others":      {"%s and %d others", "%s 等另外 %d 人"},
	"gap":             {"%d messages by %s are missing, fetching", "缺少 %[2]s 的 %[1]d 条消息，正在获取"},
	"typing":          {"%s is typing", "%s 正在输入"},
	"no nick":         {"(no nick)", "（无昵称）"},

	"state failed": {"not delivered: %s", "未送达：%s"},

	"not connected": {"not connected: %s", "未连接：%s"},
	"node gone":     {"the node does not answer; your text is kept; trying again", "节点没有响应；草稿已保留；正在重试"},
	"nobody":        {"nobody is connected yet", "尚未连接到任何人"},
	"peers":         {"peers %d", "节点 %d"},
	"relayed":       {"%d relayed", "%d 中继"},
	"outbox":        {"outbox %d", "待发 %d"},
	"gaps":          {"gaps %d", "缺口 %d"},
	"active":        {"Act: %s", "活动：%s"},
	"disk":          {"the disk is full: nothing new can be kept; free some space", "磁盘已满：无法保存新消息，请释放空间"},

	"press again":     {"press Ctrl+C again to quit", "再按一次 Ctrl+C 退出"},
	"cleared":         {"cleared; Up brings it back", "已清空；按上方向键可恢复"},
	"unknown command": {"unknown command /%s", "未知命令 /%s"},
	"did you mean":    {"; did you mean /%s?", "；是否想输入 /%s？"},
	"see help":        {"; /help lists them", "；用 /help 查看列表"},
	"usage":           {"usage: %s", "用法：%s"},
	"done":            {"done", "完成"},
	"nick set":        {"you are %s now", "你现在叫 %s"},
	"left room":       {"left %s; its history stays here", "已离开 %s；历史仍保留在本机"},
	"no message":      {"no such message here", "这里没有这条消息"},
	"not yours":       {"that is not your message", "这不是你的消息"},
	"replying":        {"reply to %s: %s", "回复 %s：%s"},
	"editing":         {"editing your message; Esc leaves it as it is", "正在编辑你的消息；按 Esc 放弃"},
	"muted":           {"%s is muted", "%s 已静音"},
	"unmuted":         {"%s notifies again", "%s 恢复通知"},
	"setting":         {"%s is %s", "%s 为 %s"},
	"settings":        {"settings: theme dark|light|none, typing on|off, bell on|off, links on|off, lang en|zh", "设置：theme dark|light|none, typing on|off, bell on|off, links on|off, lang en|zh"},
	"verified":        {"%s is verified", "%s 已验证"},
	"invite made":     {"an invite was made; whoever has it can join", "邀请已生成；持有者即可加入"},

	"paste question": {"Send %d lines as one message? (y: send, e: keep editing, n: drop)", "将 %d 行作为一条消息发送？（y 发送，e 继续编辑，n 丢弃）"},
	"close":          {"Esc closes", "按 Esc 关闭"},
	"switch":         {"go to", "前往"},
	"search":         {"search", "搜索"},
	"no hits":        {"nothing found", "没有找到"},
	"help title":     {"help", "帮助"},
	"peers title":    {"peers", "节点"},
	"doctor title":   {"doctor", "诊断"},
	"outbox title":   {"outbox", "待发送"},
	"status title":   {"status", "状态"},
	"whois title":    {"who is", "查询"},
	"verify title":   {"verification", "验证"},
	"invite title":   {"invite", "邀请"},
	"raw title":      {"raw text", "原始文本"},
	"history title":  {"history", "历史"},
	"nothing":        {"nothing", "无"},
	"compare":        {"Compare these numbers with %s, in person or by a call. If they are equal: /verify %s yes", "请当面或通过电话与 %s 核对这些数字。如果一致：/verify %s yes"},
	"too small":      {"the window is too small; make it at least 20 by 6", "窗口太小；请至少调整到 20 列 6 行"},

	"help keys": {
		"Alt+1..9 conversation   Ctrl+N/P or Alt+Down/Up next/previous   Alt+A next active   Alt+/ last\n" +
			"PgUp/PgDn scroll   Home/End (empty input) oldest/newest   Alt+U first unread\n" +
			"Tab complete   Up/Down input history   Ctrl+F search   Ctrl+G go to   Alt+Enter new line\n" +
			"Ctrl+C clears the input, and quits when it is empty   Ctrl+L redraws",
		"Alt+1..9 会话   Ctrl+N/P 或 Alt+下/上 下一个/上一个   Alt+A 下一个活动会话   Alt+/ 上一个看过的会话\n" +
			"PgUp/PgDn 滚动   Home/End（输入为空时）最旧/最新   Alt+U 第一条未读\n" +
			"Tab 补全   上/下 输入历史   Ctrl+F 搜索   Ctrl+G 前往   Alt+Enter 换行\n" +
			"Ctrl+C 清空输入，输入为空时退出   Ctrl+L 重绘",
	},

	"cmd help":    {"/help [command]                 this list", "/help [命令]                 本列表"},
	"cmd join":    {"/join #room [password]          join a room, or open a starling: link", "/join #房间 [密码]           加入房间，或打开 starling: 链接"},
	"cmd part":    {"/part [#room]                   leave a room; its history stays", "/part [#房间]                离开房间，历史保留"},
	"cmd query":   {"/query @who                     open a private conversation", "/query @某人                 打开私聊"},
	"cmd msg":     {"/msg @who text                  send without going there", "/msg @某人 文本              直接发送"},
	"cmd me":      {"/me action                      say what you do", "/me 动作                     描述动作"},
	"cmd nick":    {"/nick name                      change your nick", "/nick 昵称                   更改昵称"},
	"cmd topic":   {"/topic [text]                   show or set the topic", "/topic [文本]                查看或设置主题"},
	"cmd names":   {"/names                          who is here", "/names                       查看成员"},
	"cmd whois":   {"/whois @who                     what is known about somebody", "/whois @某人                 查看某人信息"},
	"cmd invite":  {"/invite [#room]                 make an invite link with a QR code", "/invite [#房间]              生成邀请链接和二维码"},
	"cmd mute":    {"/mute, /unmute                  notifications of this conversation", "/mute、/unmute               本会话的通知"},
	"cmd ignore":  {"/ignore @who, /unignore @who    block somebody", "/ignore @某人、/unignore @某人  屏蔽某人"},
	"cmd search":  {"/search words                   search this conversation (Ctrl+F)", "/search 关键词               在本会话搜索（Ctrl+F）"},
	"cmd history": {"/history [n]                    the last n messages as a page", "/history [n]                 最近 n 条消息"},
	"cmd reply":   {"/reply [n] text                 answer the nth last message", "/reply [n] 文本              回复倒数第 n 条消息"},
	"cmd edit":    {"/edit [text]                    change your last message", "/edit [文本]                 修改你的上一条消息"},
	"cmd delete":  {"/delete                         delete your last message", "/delete                      删除你的上一条消息"},
	"cmd react":   {"/react [n] emoji                react to the nth last message", "/react [n] 表情              对倒数第 n 条消息回应"},
	"cmd raw":     {"/raw [n]                        the nth last message byte by byte", "/raw [n]                     逐字节查看倒数第 n 条消息"},
	"cmd read":    {"/read                           mark everything read", "/read                        全部标为已读"},
	"cmd contact": {"/contact add|accept|reject|rename|remove who [name]", "/contact add|accept|reject|rename|remove 某人 [名称]"},
	"cmd verify":  {"/verify @who [yes|no]           compare safety numbers", "/verify @某人 [yes|no]       核对安全码"},
	"cmd status":  {"/status                         the state of the node", "/status                      节点状态"},
	"cmd peers":   {"/peers                          who is connected and how", "/peers                       连接情况"},
	"cmd ping":    {"/ping @who                      one round trip", "/ping @某人                  测量往返时间"},
	"cmd doctor":  {"/doctor                         check the connection", "/doctor                      检查连接"},
	"cmd outbox":  {"/outbox [retry|cancel id]       what has not arrived yet", "/outbox [retry|cancel 编号]  尚未送达的消息"},
	"cmd set":     {"/set [name value]               settings", "/set [名称 值]               设置"},
	"cmd lang":    {"/lang en|zh                     language", "/lang en|zh                  语言"},
	"cmd quit":    {"/quit                           leave; the node goes on if it was running before", "/quit                        退出；原已运行的节点会继续运行"},
	"slash":       {"//text                          text that begins with a slash", "//文本                       以斜杠开头的文本"},
}
